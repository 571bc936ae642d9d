"""Methods that learn from rewards of completions."""
