"""Commands about campaigns of experiments that somebody else makes."""
