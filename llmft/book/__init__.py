"""Notebooks in; frozen, checked and rendered pages out."""
