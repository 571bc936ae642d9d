"""Claims about learning from comparisons."""
