"""What is known of the actions of a log beyond the actions themselves."""
