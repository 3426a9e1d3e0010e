"""Layers: the document with its plan and results, and the table that shows and changes it."""
