"""The evaluation of a finished run: its checks before the first step, and its results in `evaluation.json`."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memgpt_jax import data, models, parallel
from memgpt_jax.config.checks import check
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import to_json
from memgpt_jax.errors import RunError, usable
from memgpt_jax.files.paths import shown
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.files.sealed import seal, unseal
from memgpt_jax.training.liveness import cost
from memgpt_jax.training.preflight import Estimate, in_bytes, one_block

SETTINGS = "settings"
"""The field of evaluation.json that holds the `EvaluationConfig` of the results."""


def check_evaluation(config: ExperimentConfig, tokenizer: Any) -> None:
    """Open the held-out data and make its first batch. Raises `ValueError` where the evaluation would."""
    settings = config.evaluation
    if isinstance(config.data, TaskConfig):
        task = data.make_task(config.data, settings.split, tokenizer)
        length = config.row_length or config.training.sequence_length
        next(iter(task.held_out(0, settings.batch_size, length, settings.num_batches)))
    elif data.make_objective(config.data.objective).evaluation == "documents":
        texts = data.documents(config.data, settings.split, tokenizer)
        if config.model.position == "learned":
            _check_positions(config, tokenizer, texts)
    else:
        rows = dataclasses.replace(config.training, batch_size=settings.batch_size)
        next(data.text_batches(config.data, rows, 0, tokenizer, settings.split))


def _check_positions(config: ExperimentConfig, tokenizer: Any, texts: data.TokenizedText) -> None:
    """Raise `ValueError` if a document is longer than the table of learned positions of the model."""
    from memgpt_jax.evaluation.evaluate import check_positions

    positions, settings = config.model.num_positions, config.evaluation
    found = np.diff(texts.offsets)[: settings.max_documents].max() - 1
    check_positions(config, int(found if settings.max_tokens is None else min(found, settings.max_tokens)))
    if config.training.carry_state:
        longest = int(np.diff(data.documents(config.data, "train", tokenizer).offsets).max())
        check(
            longest <= positions,
            f"a document of the training split has {longest} tokens, and the model has learned positions for "
            f"model.num_positions={positions}: set training.carry_state=False, so that every batch starts at position "
            "0, take shorter documents, or set model.num_positions",
        )


def check_evaluation_memory(config: ExperimentConfig, found: Estimate, limit: int | None) -> None:
    """Raise `RunError` if the evaluation needs more memory than a device has.

    Arguments:
        config: the experiment.
        found: the estimate for its training.
        limit: memory of a device in bytes; None: unknown. Every device reads whole batches. Where parameters are split
            over devices, the estimate is only an upper bound, and nothing is refused.
    """
    rows, length = config.evaluation.batch_size, _call_length(config)
    training = config.training
    parallel_sizes = (getattr(config.parallel, axis) for axis in ("fsdp", "tensor", "sequence"))
    small = rows <= training.batch_size and rows * length <= training.batch_size * training.sequence_length
    if limit is None or small or any(size > 1 for size in parallel_sizes):
        return
    model = config.model.with_implementation("portable")
    model = model.with_stacks({name: one_block(stack, True) for name, stack in model.stacks.items()})
    params = models.functional(model).param_shapes()
    state = jax.eval_shape(lambda: models.functional(model).init_state(rows))
    arrays = data.batch_shapes(config.data, dataclasses.replace(training, batch_size=rows, sequence_length=length))
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), arrays)

    def score(params, batch, state):
        alignment = model.alignment_of(batch.inputs["tokens"].shape[1])
        options = {"targets": batch.targets, "state": state, "alignment": alignment}
        return models.functional(model).score(params, **batch.inputs, **options)

    work = cost(jax.make_jaxpr(score)(params, shapes, state)).peak
    states = 2 * found.state_bytes * rows // training.batch_size  # before and after
    needed = 4 * found.parameters + states + work
    if needed > limit:
        raise RunError(
            f"the evaluation takes about {in_bytes(needed)} of memory on a device, which has {in_bytes(limit)}; lower "
            f"evaluation.batch_size={rows} or evaluation.chunk_length={config.evaluation.chunk_length}"
        )


def _call_length(config: ExperimentConfig) -> int:
    """Tokens of a row that the evaluation reads in one call."""
    chunk = config.evaluation.chunk_length
    if isinstance(config.data, TaskConfig):
        return min(chunk, config.row_length or config.training.sequence_length)
    by_document = data.make_objective(config.data.objective).evaluation == "documents"
    return chunk if by_document else config.training.sequence_length


def held_out(config: ExperimentConfig, params: Any, tokenizer: Any, workdir: Path) -> dict[str, Any]:
    """The evaluation of a finished run, kept in `evaluation.json` and repeated if `config.evaluation` has changed."""
    from memgpt_jax.evaluation.evaluate import evaluate

    kept = kept_evaluation(config, workdir)
    if parallel.agree(kept is not None):
        return kept
    result = evaluate(config, params, tokenizer)
    if parallel.is_main():
        replace_file(workdir / "evaluation.json", seal(result | {SETTINGS: to_json(config.evaluation)}) + "\n")
    return result


def kept_evaluation(config: ExperimentConfig, workdir: Path) -> dict[str, Any] | None:
    """The results in `evaluation.json`; None if there are none for the `EvaluationConfig` of the config.

    Raises `RunError` if the file is damaged.
    """
    result = read_evaluation(workdir)
    if result is None or result.pop(SETTINGS, None) not in (None, to_json(config.evaluation)):
        return None
    return result


def read_evaluation(workdir: Path) -> dict[str, Any] | None:
    """The content of `evaluation.json`; None where there is none. Raises `RunError` if it is damaged or unreadable."""
    path = workdir / "evaluation.json"
    try:
        with usable({"workdir": workdir}):
            return unseal(path.read_bytes().decode().removesuffix("\n")) if path.exists() else None
    except ValueError as error:  # DamagedError, UnicodeDecodeError
        raise RunError(f"{shown(path)} is damaged: {error}. Delete it, and the run is evaluated again") from None
