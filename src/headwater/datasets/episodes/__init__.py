"""Where the episodes of a log end, and whether what follows a row fits."""
