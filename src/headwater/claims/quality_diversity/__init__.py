"""Claims about many solutions that differ in what they do."""
