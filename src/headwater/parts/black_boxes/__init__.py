"""What methods that choose evaluations of black boxes share."""
