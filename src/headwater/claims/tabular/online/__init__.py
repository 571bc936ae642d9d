"""Claims about learning a finite process by acting in it."""
