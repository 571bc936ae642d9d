"""What judges learned ways of learning."""
