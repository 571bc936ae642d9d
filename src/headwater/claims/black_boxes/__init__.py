"""Claims about black boxes."""
