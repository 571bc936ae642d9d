"""Claims about exploring a finite process before rewards are known."""
