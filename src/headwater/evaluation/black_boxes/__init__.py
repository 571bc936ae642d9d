"""What is found in black boxes."""
