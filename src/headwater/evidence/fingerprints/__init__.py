"""Fingerprints of the code that an experiment or a test executes."""
