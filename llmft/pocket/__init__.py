"""The pocket world: a grammar whose meaning is known, its data sets, and the text a small model learns from."""
