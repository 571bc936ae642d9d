"""Rankings of agents from what judges say of their episodes."""
