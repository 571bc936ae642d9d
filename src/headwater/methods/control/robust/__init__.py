"""Methods whose policies have to do well although what they observe is tampered with."""
