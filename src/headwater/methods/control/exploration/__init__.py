"""Methods that add a bonus for what is new to the rewards that another method learns from."""
