"""Methods that learn decoders whose layers hold several experts."""
