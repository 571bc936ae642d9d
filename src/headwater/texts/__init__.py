"""Texts, tokenizers and chat templates."""
