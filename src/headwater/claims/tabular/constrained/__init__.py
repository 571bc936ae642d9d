"""Claims about learning a finite process within budgets."""
