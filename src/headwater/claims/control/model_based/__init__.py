"""Claims about learning from a model of the process."""
