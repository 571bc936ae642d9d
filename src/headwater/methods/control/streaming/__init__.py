"""Methods that learn from each step once, as it happens."""
