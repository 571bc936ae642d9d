"""Methods that learn from a fixed set of transitions."""
