"""Claims about methods that keep to limits on further rewards."""
