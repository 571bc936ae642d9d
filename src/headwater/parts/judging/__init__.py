"""What learns, beside a policy, how good it is."""
