"""Claims about finite processes."""
