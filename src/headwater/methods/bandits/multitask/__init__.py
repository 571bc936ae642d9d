"""Methods that learn several bandits together."""
