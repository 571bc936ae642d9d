"""Tasks of computer systems and networks: what to send, and what to run next."""
