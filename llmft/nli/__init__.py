"""Sentence pairs and prompts in, token ids out."""
