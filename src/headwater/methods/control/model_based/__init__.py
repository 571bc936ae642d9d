"""Learning from a log by way of a model of the process."""
