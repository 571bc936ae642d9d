"""The contract: methods, sources, problems, records and the catalogue."""
