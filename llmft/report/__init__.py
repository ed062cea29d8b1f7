"""Rows in; numbers, figures and sentences out."""
