"""Claims about learning from texts."""
