"""What changes the output of a trained model without learning."""
