"""Claims about decoding."""
