"""Tasks that come in numbered levels, of which some are held out."""
