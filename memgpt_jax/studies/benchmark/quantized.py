"""A pretrained decoder in float32 and quantised: bytes, bits per byte of a text, and decoding side by side."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import load_tokenizer
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.text import document_losses
from memgpt_jax.interop import from_pretrained
from memgpt_jax.models.quantization import quantize_params, with_state_bits
from memgpt_jax.ops.quantized import Bits
from memgpt_jax.ops.trees import tree_bytes
from memgpt_jax.studies.benchmark.decoding import decoding_case
from memgpt_jax.studies.benchmark.interleaving import interleave

NAMES: dict[Bits, str] = {8: "8 bits", "q8_0": "8 bits in groups", 4: "4 bits"}
CALL = 512
"""Approximate tokens of a call that scores the text."""


def quantized_rows(
    source: str,
    text: str,
    *,
    bits: Sequence[Bits],
    state_bits: int | None,
    rows: Sequence[int],
    context: int,
    window: int | None,
    rounds: int,
) -> list[dict[str, Any]]:
    """A row for a decoder in float32, and one for each of `bits`.

    Args:
        source: the model, as in `from_pretrained`.
        text: a document; its bits per byte are measured.
        bits: as in `models.quantize`.
        state_bits: also a row for float32 weights with states of this number of bits; None: no such row.
        rows: numbers of rows that are decoded together, after `context` tokens; all forms are timed in turns.
        context: tokens read before decoding.
        window: `window_size`; None: as the model has.
        rounds: rounds of timing.
    """
    changes: dict[str, Any] = {} if window is None else {"window_size": window}
    model = from_pretrained(source, **changes)
    config, tokenizer = instance_of(model.config, ModelConfig, "the model"), load_tokenizer(source)
    params = models.to_params(model)
    forms = {"float32": (config, params)}
    forms |= {NAMES[form]: (config, quantize_params(config, params, form)) for form in bits}
    if state_bits is not None:
        forms[f"float32, states of {state_bits} bits"] = with_state_bits(config, state_bits), params
    found: dict[str, dict[str, Any]] = {name: {"weights": name} for name in forms}
    ids, size = np.array(tokenizer.encode(text), np.int32), len(text.encode())
    for name, (form, tree) in forms.items():
        measured = bits_per_byte(form, tree, tokenizer.start_id, ids, size)
        state = jax.eval_shape(lambda form=form: models.functional(form).init_state(1))
        found[name] |= {"MB": tree_bytes(tree) / 1e6, "share of bytes": tree_bytes(tree) / tree_bytes(params)}
        found[name] |= {"state of a row, MB": tree_bytes(state) / 1e6}
        first = found["float32"].setdefault("bits per byte", measured)
        found[name] |= {"bits per byte": measured, "worse by, %": 100 * (measured / first - 1)}
    for number in rows:
        cases = {name: decoding_case(form, context, number, tree) for name, (form, tree) in forms.items()}
        times = interleave(cases, rounds)
        for name, case in cases.items():
            speed, first = case.tokens / times[name].whole, case.tokens / times["float32"].whole
            found[name] |= {f"tokens/s, {number} rows": speed, f"relative, {number} rows": speed / first}
    return list(found.values())


def bits_per_byte(config: ModelConfig, params: models.Params, start_id: int, ids: np.ndarray, size: int) -> float:
    """Bits per byte of one document of `size` bytes."""
    length = config.segment_length * max(1, CALL // config.segment_length)
    evaluation = ExperimentConfig(model=config, evaluation=EvaluationConfig(batch_size=1, chunk_length=length))
    [losses] = document_losses(evaluation, params, start_id, [ids])
    return metric("bits_per_byte", nats=float(losses.sum()), bytes=size)
