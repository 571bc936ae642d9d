"""Methods that learn from demonstrations."""
