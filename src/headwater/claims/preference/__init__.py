"""Claims about preferences over trajectories."""
