"""Methods that learn from comparisons of segments of a log."""
