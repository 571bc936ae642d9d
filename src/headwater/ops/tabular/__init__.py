"""Equations and algorithms of finite processes."""
