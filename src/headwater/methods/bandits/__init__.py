"""Methods that choose among arms, round by round."""
