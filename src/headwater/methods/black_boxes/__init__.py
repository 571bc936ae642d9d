"""Methods that choose where a black box is evaluated."""
