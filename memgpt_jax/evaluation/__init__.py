"""Held-out evaluation of text, of the objectives, of tasks, and of one long stream."""
