"""Methods that learn from logged transitions."""
