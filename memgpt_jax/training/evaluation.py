"""The evaluation of a finished run: its checks before the first step, and its results in `evaluation.json`."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from memgpt_jax import data, models, parallel
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import to_json
from memgpt_jax.errors import RunError, usable
from memgpt_jax.evaluation import evaluate
from memgpt_jax.files.paths import shown
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.files.sealed import seal, unseal
from memgpt_jax.training.liveness import cost
from memgpt_jax.training.preflight import Estimate, in_bytes, one_block

SETTINGS = "settings"
"""The field of evaluation.json that holds the `EvaluationConfig` of the results."""


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
    model = config.model.with_kernels("portable")
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
