"""Claims about learning from comparisons of pieces of a log."""
