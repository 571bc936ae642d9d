"""What methods share that learn one task after the other."""
