"""Claims about learning from demonstrations."""
