"""Claims about policies that are attacked."""
