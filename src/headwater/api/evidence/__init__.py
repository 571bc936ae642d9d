"""What people do with claims and papers."""
