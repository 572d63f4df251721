"""Knowledge in memory: texts as entries that every token can read, cite, and do without again.

>>> facts = mg.knowledge.encode(model, ["Ada wrote the first program.", ...], tokenizer)
>>> state = mg.knowledge.write(model, model.init_state(1), facts.without([3]))

`Knowledge` is a value: adding, deleting and replacing texts gives another one, which is written into any state.
"""

from memgpt_jax.knowledge.citations import Citation, cite, source_weights
from memgpt_jax.knowledge.encoding import encode
from memgpt_jax.knowledge.entries import Knowledge, LayerEntries
from memgpt_jax.knowledge.files import load, save
from memgpt_jax.knowledge.writing import write

__all__ = ["Citation", "Knowledge", "LayerEntries", "cite", "encode", "load", "save", "source_weights", "write"]
