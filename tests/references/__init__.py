"""Slow NumPy references, and results of other libraries."""
