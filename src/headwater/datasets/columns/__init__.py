"""The columns of files: which is what, what is said of them, and the dataset they amount to."""
