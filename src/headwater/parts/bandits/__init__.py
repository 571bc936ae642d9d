"""States and steps that methods for bandits share."""
