"""Where the rows of a run go besides its files: a small file for each back end."""
