"""Methods that learn finite processes from whole episodes."""
