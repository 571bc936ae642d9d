"""Methods that learn from texts."""
