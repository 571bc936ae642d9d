"""What reads something finished and returns numbers."""
