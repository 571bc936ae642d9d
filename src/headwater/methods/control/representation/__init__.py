"""Methods that learn from transitions of their own."""
