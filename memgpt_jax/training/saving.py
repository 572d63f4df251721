"""The checkpoints of a training run: what is saved of its state, and how the state is restored.

Items of a checkpoint: `params`, `opt_state`, `model_state`, `run` (step, PRNG key, sums and counts),
`data` (the position in the data) and `config`. The tokenizer, which never changes, is saved once, in
`workdir/tokenizer`, before the first checkpoint.
"""

from typing import Any

import jax

from memgpt_jax.checkpoint import Checkpoints
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import to_json
from memgpt_jax.files.paths import shown
from memgpt_jax.training.changes import check_changes
from memgpt_jax.training.state import TrainState, abstract_state, checkpoint_bytes

TREES = ("params", "opt_state", "model_state")
"""Fields of `TrainState` that are separate items; all other fields together are the item `run`."""


def save_run(checkpoints: Checkpoints, config: ExperimentConfig, state: TrainState, position: Any) -> None:
    """Save a run after `state.step` steps; if this step is saved already, do nothing.

    Args:
        checkpoints: the checkpoints of the run.
        config: the experiment.
        state: the state of the run.
        position: the position in the data, a JSON value.
    """
    values = {"data": {"state": position}, "config": to_json(config)}
    # Parameters and optimizer state hardly compress.
    checkpoints.save(int(state.step), _items(state), values, least_bytes=0.9 * checkpoint_bytes(config))


def restore_run(
    checkpoints: Checkpoints, config: ExperimentConfig, shardings: TrainState | None = None, extend: bool = False
) -> tuple[TrainState, Any]:
    """The state of a run and its position in the data, from the latest checkpoint that is not damaged.

    A damaged checkpoint is named in a warning and, unless `checkpoints` are read-only, moved to `workdir/damaged`.

    Args:
        checkpoints: the checkpoints of the run.
        config: the experiment; fields in `memgpt_jax.training.changes.FREE` may differ from those of the checkpoint.
        shardings: the shardings of the restored state; default: all arrays on the first device.
        extend: whether `training.steps` may be larger than when the run was saved.

    Raises:
        RunError: the checkpoint belongs to another config, or no checkpoint can be read.
    """
    shapes = abstract_state(config)
    if shardings is not None:
        shapes = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
        )

    def read(step: int) -> tuple[TrainState, Any]:
        checkpoints.verify(step)
        check_changes(checkpoints.config(step), config, step, extend, shown(checkpoints.folder.parent))
        items = checkpoints.read(step, _items(shapes) | {"data": None})
        return TrainState(**items["run"], **{name: items[name] for name in TREES}), items["data"]["state"]

    return checkpoints.first_good(read)


def _items(state: TrainState) -> dict[str, Any]:
    """The trees of a checkpoint by the names of its items."""
    fields = state._asdict()
    return {name: fields.pop(name) for name in TREES} | {"run": fields}
