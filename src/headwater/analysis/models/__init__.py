"""What models of a process are worth, and for what they have to be right."""
