"""What learning one task after the other is worth."""
