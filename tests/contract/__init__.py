"""What every method must satisfy, found by walking the catalogue."""
