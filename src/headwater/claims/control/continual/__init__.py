"""Claims about methods that learn one task after the other."""
