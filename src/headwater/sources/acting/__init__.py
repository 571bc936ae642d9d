"""Acting with an eye on what it returns."""
