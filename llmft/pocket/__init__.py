"""The pocket world: a grammar whose meaning is known, its data sets, and a small model's text."""
