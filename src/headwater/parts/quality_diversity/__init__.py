"""States and steps of methods that look for many solutions which differ in what they do."""
