"""Methods that grow a language model while it learns."""
