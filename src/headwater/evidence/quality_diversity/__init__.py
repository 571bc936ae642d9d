"""What claims about quality diversity share."""
