"""How good a policy is and how sure we are: returns, off-policy estimates, statistics, savings."""
