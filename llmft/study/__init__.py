"""Specifications of runs in, one stored row each out."""
