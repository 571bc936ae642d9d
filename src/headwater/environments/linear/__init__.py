"""Linear and low-rank processes."""
