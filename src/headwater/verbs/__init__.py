"""What people do with Headwater, one file per verb; the commands mirror them."""
