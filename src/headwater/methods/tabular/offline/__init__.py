"""Methods that learn a finite process from a log."""
