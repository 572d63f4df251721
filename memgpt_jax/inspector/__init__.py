"""What a memory does with a text: a trace, its file, and the page that shows it."""

from memgpt_jax.inspector.editing import forget, without_memory
from memgpt_jax.inspector.entries import EntryList, edit_entry, list_entries
from memgpt_jax.inspector.trace import LayerRecord, Trace, trace, write_page

__all__ = [
    "EntryList",
    "LayerRecord",
    "Trace",
    "edit_entry",
    "forget",
    "list_entries",
    "trace",
    "without_memory",
    "write_page",
]
