"""What is promised of what reads something finished."""
