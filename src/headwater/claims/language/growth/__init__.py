"""Claims about growing models."""
