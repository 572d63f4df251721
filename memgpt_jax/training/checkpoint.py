"""Checkpoints of a run in `workdir/checkpoints`. The only place that knows Orbax, which is imported when first used.

Each checkpoint holds, as items that can be read alone: `params`, `opt_state`, `memory` (the model's state), `run`
(step, PRNG key, sums and counts), `data` (the position in the data) and `config`. The tokenizer, which never changes,
is kept once, in `workdir/tokenizer`, and is written before the first checkpoint.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax import models
from memgpt_jax.config import ExperimentConfig
from memgpt_jax.config_json import differences, from_json, to_json
from memgpt_jax.training.errors import RunError
from memgpt_jax.training.state import TrainState, create

TREES = ("params", "opt_state", "memory", "run")
RUN_FIELDS = ("step", "key", "totals", "skipped", "skipped_in_a_row")


class Loaded(NamedTuple):
    """What `load` returns."""

    config: ExperimentConfig
    """The experiment."""
    params: Any
    """Parameters of the model."""
    step: int
    """The step after which they were saved."""


def load(workdir: str | Path, step: int | None = None) -> Loaded:
    """Config and parameters of a run, without optimizer or memory.

    Arguments:
        workdir: the folder that it was trained in.
        step: which checkpoint; default: the latest.

    Raises:
        RunError: there is no such checkpoint, or it cannot be read.
    """
    with Checkpoints(workdir, read_only=True) as checkpoints:
        step = checkpoints.find(step)
        config = checkpoints.config(step)
        return Loaded(config, checkpoints.read(step, {"params": models.shapes(config.model)})["params"], step)


class Checkpoints:
    """The checkpoints of one run; a context manager, which on leaving waits until the last save is on disk.

    A save returns once the arrays are copied, and is written in the background: under another name until it is whole,
    so a process killed meanwhile leaves the previous checkpoint as the latest.
    """

    def __init__(self, workdir: str | Path, keep: int = 1, read_only: bool = False):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self.folder = Path(workdir).expanduser().absolute() / "checkpoints"
        if read_only and not self.folder.is_dir():
            raise RunError(f"there is no checkpoint in {self.folder.parent}: no run has been started there")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=not read_only, cleanup_tmp_directories=not read_only
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=(*TREES, "data", "config"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    def latest_step(self) -> int | None:
        """Step of the latest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def find(self, step: int | None) -> int:
        """The step, or for None the latest one; `RunError` if there is no checkpoint of it."""
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise RunError(f"there is no checkpoint in {self.folder.parent}: its run saved none")
        if step is not None and step not in steps:
            raise RunError(f"there is no checkpoint of step {step} in {self.folder.parent}; there are: {steps}")
        return steps[-1] if step is None else step

    def save(self, config: ExperimentConfig, state: TrainState, data_state: Any) -> None:
        """Save the run as it stands after `state.step` steps; a step that is already saved is left alone."""
        step = int(state.step)
        if step == self.latest_step():
            return
        trees = {name: tree for name, tree in _items(state).items() if _has_values(tree)}
        args = {name: self._ocp.args.StandardSave(_without_empty(tree)) for name, tree in trees.items()}
        args["data"] = self._ocp.args.JsonSave({"state": data_state})
        args["config"] = self._ocp.args.JsonSave(to_json(config))
        self._manager.save(step, args=self._ocp.args.Composite(**args))

    def restore(self, config: ExperimentConfig, shardings: TrainState | None = None) -> tuple[TrainState, Any]:
        """The latest run state, and the position in the data, as `save` took them.

        Arguments:
            config: of the run; `parallel`, and how the model computes (`ModelConfig.run_like`), may be other ones than
                when it was saved.
            shardings: how the state is to be split; default: it goes to the first device.

        Raises:
            RunError: the checkpoint is of another config, or cannot be read.
        """
        step = self.find(None)
        saved = self.config(step)  # any mesh, and any way to compute the same, can go on
        saved = dataclasses.replace(saved, parallel=config.parallel, model=saved.model.run_like(config.model))
        changed = differences(saved, config)
        if changed:
            raise RunError(
                f"{self.folder.parent} holds a run with another config; take it back, or choose another workdir:\n  "
                + "\n  ".join(changed)
            )
        shapes = jax.eval_shape(partial(create, config))
        if shardings is not None:
            split = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
            shapes = jax.tree.map(split, shapes, shardings)
        items = self.read(step, _items(shapes))
        data_state = self.read(step, {"data": None})["data"]["state"]
        return TrainState(**items["run"], **{name: items[name] for name in TREES if name != "run"}), data_state

    def config(self, step: int) -> ExperimentConfig:
        """The config of a checkpoint."""
        return from_json(self.read(step, {"config": None})["config"])

    def read(self, step: int, targets: dict[str, Any]) -> dict[str, Any]:
        """Some items of a checkpoint: trees like the given ones of shapes and dtypes, JSON values where that is None.

        Arrays without a sharding go to the first device.

        Raises:
            RunError: it cannot be read.
        """
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def args(target):
            if target is None:
                return self._ocp.args.JsonRestore()
            sharding = lambda leaf: getattr(leaf, "sharding", None) or device  # noqa: E731
            place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding(leaf))  # noqa: E731
            placed = jax.tree.map(place, target)
            return self._ocp.args.StandardRestore(_without_empty(placed))

        # What holds no values, as the memory of an encoder without one, was not saved.
        saved = {name: args(target) for name, target in targets.items() if target is None or _has_values(target)}
        try:
            restored = self._manager.restore(step, args=self._ocp.args.Composite(**saved))
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
            others = sorted(set(self._manager.all_steps()) - {step})
            raise RunError(
                f"the checkpoint {self.folder / str(step)} cannot be read ({', '.join(targets)}): it is damaged, or "
                f"of another version. Remove that folder to go on from another checkpoint; there are: {others}"
            ) from error
        found = {name: restored[name] if name in saved else target for name, target in targets.items()}
        return {name: _with_empty(found[name], target) for name, target in targets.items()}


def _items(state: TrainState) -> dict[str, Any]:
    """The trees that are saved, by name."""
    trees = {name: getattr(state, name) for name in TREES if name != "run"}
    return trees | {"run": {name: getattr(state, name) for name in RUN_FIELDS}}


def _has_values(tree: Any) -> bool:
    return any(leaf.size for leaf in jax.tree.leaves(tree))


def _without_empty(tree: Any) -> Any:
    """The tree without arrays of size 0 (a memory of no entries has them), which Orbax refuses."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else (), tree)


def _with_empty(tree: Any, target: Any) -> Any:
    """`_without_empty` undone for a tree of the shapes of `target`; None as target: it is no tree of arrays."""
    if target is None:
        return tree
    return jax.tree.map(lambda leaf, value: value if leaf.size else jnp.zeros(leaf.shape, leaf.dtype), target, tree)
