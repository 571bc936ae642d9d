"""Methods that learn from compared completions."""
