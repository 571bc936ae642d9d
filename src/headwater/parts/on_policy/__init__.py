"""What methods that learn from what they have just done share."""
