"""Reading, writing and searching a memory."""
