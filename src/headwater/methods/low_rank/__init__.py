"""Methods for processes of low rank, whose features are learned."""
