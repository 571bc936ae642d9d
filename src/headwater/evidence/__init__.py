"""What a claim is, its records, and what claims share."""
