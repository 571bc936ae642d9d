"""Methods that learn from texts: demonstrations, comparisons, rewards and their own samples."""
