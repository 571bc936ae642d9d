"""Sessions of people to whom a recommender shows one item after the other."""
