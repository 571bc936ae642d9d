"""What claims about language models share."""
