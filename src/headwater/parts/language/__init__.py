"""What methods of language models share."""
