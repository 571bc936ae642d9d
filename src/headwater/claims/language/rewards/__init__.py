"""Claims about learning from rewards."""
