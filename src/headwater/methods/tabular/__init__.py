"""Methods for finite processes."""
