"""Named chains of stages."""
