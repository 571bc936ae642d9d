"""Methods that learn how to learn, over many small tasks."""
