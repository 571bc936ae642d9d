"""Claims about learning a finite process from a log."""
