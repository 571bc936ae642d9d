"""Sources of whole tasks, from which it is learned how to learn."""
