"""Networks that are update rules: from what an agent did to how it is to change."""
