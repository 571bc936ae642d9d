"""From what a method declares and what a user has to a stage that can run."""
