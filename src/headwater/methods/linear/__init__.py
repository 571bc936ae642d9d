"""Methods for processes whose transitions and rewards are linear in known features."""
