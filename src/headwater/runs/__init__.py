"""The one loop, and what surrounds it: stages, checkpoints, logs, progress, recipes."""
