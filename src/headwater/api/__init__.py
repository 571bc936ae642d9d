"""What people do, from Python."""
