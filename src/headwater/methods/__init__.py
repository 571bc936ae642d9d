"""The catalogue: one folder per kind of data that flows in, one file per method."""
