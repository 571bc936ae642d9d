"""Methods that explore a finite process before any reward is known."""
