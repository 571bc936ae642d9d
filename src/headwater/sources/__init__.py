"""Where the next batch comes from."""
