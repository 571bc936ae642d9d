"""Tasks that are about finding what earns a reward at all."""
