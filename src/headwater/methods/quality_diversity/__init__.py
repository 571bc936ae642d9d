"""Methods that look for many solutions which differ in what they do."""
