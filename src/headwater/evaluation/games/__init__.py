"""What policies of games are worth."""
