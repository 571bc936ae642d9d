"""Methods that explore a finite process for its reward."""
