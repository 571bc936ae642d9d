"""Claims about bandits."""
