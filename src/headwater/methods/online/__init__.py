"""Methods that learn from transitions collected by their own policy."""
