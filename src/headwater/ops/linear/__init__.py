"""Equations of linear and low-rank processes and of preferences over them."""
