"""Files that are wrong, for the tests and the drill of the readers."""
