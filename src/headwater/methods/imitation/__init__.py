"""Methods that copy logged actions."""
