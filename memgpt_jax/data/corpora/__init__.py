"""Corpora of text: sources, readers, and tokenized documents on disk."""
