"""Files of models that others trained, and what is said in them."""
