"""Methods that learn one task after the other, each from its log."""
