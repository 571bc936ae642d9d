"""What people do with tables of runs."""
