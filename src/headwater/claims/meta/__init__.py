"""Claims about learning how to learn."""
