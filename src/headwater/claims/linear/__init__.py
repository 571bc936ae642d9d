"""Claims about linear processes."""
