"""What methods are told before they learn."""
