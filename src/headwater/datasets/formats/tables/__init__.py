"""What tables hold in their cells beyond plain numbers."""
