"""Claims about decoders with experts."""
