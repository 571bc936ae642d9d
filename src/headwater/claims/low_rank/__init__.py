"""Claims about low-rank processes."""
