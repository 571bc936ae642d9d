"""States and steps that the methods of a family share."""
