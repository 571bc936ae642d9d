"""Sources in which an expert says what would have been right."""
