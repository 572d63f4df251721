"""The outputs of a head for whole documents, read in calls of fixed length."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.extras import library
from memgpt_jax.config.model import BaseModelConfig, ModelConfig
from memgpt_jax.data.progress_bar import track
from memgpt_jax.ops.mesh import replicate

Document = Mapping[str, np.ndarray]
"""`tokens` [n] and further inputs [n] or [n, F] of the model by name."""


def document_outputs(
    model: BaseModelConfig,
    params: models.Params,
    documents: Sequence[Document],
    places: Sequence[np.ndarray],
    *,
    rows: int,
    length: int,
    noun: str = "",
) -> list[np.ndarray]:
    """The outputs of the model at some tokens of each document, one array [places, C] for each.

    Each document is read once, from an empty memory, with the state carried from call to call, so that device memory
    does not grow with the length of a document. Of the outputs, those at the given tokens are kept.

    Args:
        model: a `HeadedConfig`, or a decoder, whose outputs are its logits.
        params: its parameters.
        documents: the documents, of any length and number.
        places: for each document the indices of tokens.
        rows: documents read at the same time.
        length: most tokens of a call; shorter documents are read in shorter calls. An encoder sees the tokens of a
            call, and earlier ones only through its memory.
        noun: of the documents, for a progress bar; empty: no bar.

    Raises:
        ValueError: as `check_lengths`.
    """
    sizes = [len(document["tokens"]) for document in documents]
    check_lengths(model, sizes, length)
    found: list[Any] = [None] * len(documents)
    rows = 1 if len(documents) == 1 else rows
    by_length = sorted(range(len(documents)), key=lambda index: -sizes[index])
    groups = [by_length[first : first + rows] for first in range(0, len(documents), rows)]
    for group in track(groups, noun) if noun else groups:
        state, longest = models.functional(model).init_state(rows), sizes[group[0]]
        size = call_size(model, longest, length)
        for first in range(0, longest, size):
            inputs = call_inputs([documents[index] for index in group], first, rows, size)
            outputs, state = read_call(model, params, inputs, state)
            outputs = np.asarray(outputs)
            for row, index in enumerate(group):
                if found[index] is None:
                    found[index] = np.empty((len(places[index]), outputs.shape[-1]), np.float32)
                here = (places[index] >= first) & (places[index] < first + size)
                found[index][here] = outputs[row, places[index][here] - first]
    return found


def check_lengths(model: BaseModelConfig, sizes: Sequence[int], length: int) -> None:
    """Raise `ValueError` if the model cannot read documents of so many tokens in calls of `length` tokens."""
    call, positions = getattr(model, "call_length", None), learned_positions(model)
    check(
        call is None or length <= call or length % call == 0,
        f"calls of {length} tokens must be a multiple of model.call_length={call}",
    )
    longest = max(sizes, default=0)
    check(
        positions is None or longest <= positions,
        f"a text has {longest} tokens, and the model has learned positions for num_positions={positions}: cut texts by "
        f"max_length={positions}",
    )


def check_documents(config: ExperimentConfig, documents: Callable[[], Sequence[Document]]) -> None:
    """`check_lengths` of the documents that an evaluation reads, which are only made if their length matters."""
    is_limited = learned_positions(config.model) is not None
    read = documents()[: config.evaluation.max_documents] if is_limited else []
    check_lengths(config.model, [len(document["tokens"]) for document in read], config.evaluation.chunk_length)


def check_scored_documents(config: ExperimentConfig, task: Any) -> None:
    """Raise `ValueError` if a library that the metrics need is missing, or one of `task.documents` is too long."""
    library("sklearn.metrics")
    check_documents(config, lambda: task.documents)


def call_size(model: BaseModelConfig, longest: int, length: int) -> int:
    """Tokens of the calls that read documents: a power of two, so that few shapes are compiled, but at most `length`.

    Above `call_length` it is a multiple of that.
    """
    size, call = min(length, 1 << (longest - 1).bit_length()), getattr(model, "call_length", None)
    return size if call is None or size <= call else -(-size // call) * call


def learned_positions(model: BaseModelConfig) -> int | None:
    """The most tokens of a document of a decoder with learned positions; None: the model has no such limit."""
    stack = getattr(model, "backbone", model)
    return stack.num_positions if isinstance(stack, ModelConfig) and stack.position == "learned" else None


def end_outputs(
    model: BaseModelConfig, params: models.Params, texts: Sequence[np.ndarray | Document], **options: Any
) -> list[np.ndarray]:
    """The outputs of the head [C] at the last token of each text.

    Args:
        model: a `HeadedConfig`.
        params: its parameters.
        texts: the ids [n] of each text, or a document.
        options: of `document_outputs`.
    """
    documents = [{"tokens": text} if isinstance(text, np.ndarray) else text for text in texts]
    places = [np.array([len(document["tokens"]) - 1]) for document in documents]
    return [found[0] for found in document_outputs(model, params, documents, places, **options)]


def call_inputs(documents: Sequence[Document], first: int, rows: int, length: int) -> dict[str, np.ndarray]:
    """The inputs of the call that reads the tokens from `first` on; further rows are padding."""
    inputs = {
        name: np.zeros((rows, length, *values.shape[1:]), np.float32 if name == "features" else np.int32)
        for name, values in documents[0].items()
    }
    inputs |= {"reset": np.zeros((rows, length), bool), "valid": np.zeros((rows, length), bool)}
    inputs["reset"][:, 0] = first == 0
    for row, document in enumerate(documents):
        for name, values in document.items():
            part = values[first : first + length]
            inputs[name][row, : len(part)] = part
        inputs["valid"][row, : max(0, len(document["tokens"]) - first)] = True
    return inputs


@functools.partial(jax.jit, static_argnums=0)
def read_call(
    model: BaseModelConfig, params: models.Params, inputs: dict[str, jax.Array], state: Any
) -> tuple[jax.Array, Any]:
    """The outputs of a call [B, L, C], float32 and replicated, and the state after it."""
    inputs = dict(inputs)
    outputs, state = models.functional(model).apply(params, inputs.pop("tokens"), state, **inputs)
    return replicate(outputs.astype(jnp.float32)), state
