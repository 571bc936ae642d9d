"""Black boxes whose maximum is known."""
