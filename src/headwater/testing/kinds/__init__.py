"""What each kind of data looks like: tiny problems and random batches; one kind costs one file."""
