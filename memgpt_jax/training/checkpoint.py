"""Checkpoints of a run in `workdir/checkpoints`. Orbax is imported when first used.

Each checkpoint holds, as items that can be read alone: `params`, `opt_state`, `memory` (the model's state), `run`
(step, PRNG key, sums and counts), `data` (the position in the data) and `config`; and `SHA256SUMS`, the checksums of
all its files, written before the checkpoint gets its final name. The tokenizer, which never changes, is kept once, in
`workdir/tokenizer`, and is written before the first checkpoint.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from memgpt_jax import models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import from_json, to_json
from memgpt_jax.errors import RunError, one_line, refused, usable
from memgpt_jax.files import checksums
from memgpt_jax.files.checksums import DamagedError
from memgpt_jax.files.paths import plain_path, shown
from memgpt_jax.training.changes import check_changes
from memgpt_jax.training.orbax_files import quiet_orbax, quiet_remains, root_cause, summed_path
from memgpt_jax.training.process.workdir import check_room, run_folder
from memgpt_jax.training.state import TrainState, abstract_state, checkpoint_bytes

TREES = ("params", "opt_state", "memory", "run")
DAMAGED = "damaged"
"""The folder of a run to which damaged checkpoints are moved."""
RUN_FIELDS = ("step", "key", "totals", "skipped", "skipped_in_a_row")

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


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
        step: which checkpoint; default: the latest that is not damaged. A damaged one is named in a warning.

    Raises:
        RunError: there is no such checkpoint, or it cannot be read.
    """
    with Checkpoints(workdir, read_only=True) as checkpoints:

        def read(step: int) -> Loaded:
            checkpoints.verify(step, ("params", "config"))
            config = checkpoints.config(step)
            return Loaded(
                config,
                checkpoints.read(step, {"params": models.functional(config.model).param_shapes()})["params"],
                step,
            )

        return checkpoints.first_good(read, step)


class Checkpoints:
    """The checkpoints of one run; a context manager, which on leaving waits until the last save is on disk.

    A save returns once the arrays are copied, and is written in the background: under another name until it is whole,
    so a process killed meanwhile leaves the previous checkpoint as the latest.

    Raises `RunError` for every error of the disk, also in a background save, at the next call or on leaving.
    """

    def __init__(self, workdir: str | Path, keep: int = 1, read_only: bool = False):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        workdir = run_folder(workdir)
        self.folder, self._workdir, self._read_only = workdir / "checkpoints", shown(workdir), read_only
        if read_only and not self.folder.is_dir():
            raise RunError(f"there is no checkpoint in {self._workdir}: no run has been started there")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            temporary_path_class=summed_path(),
        )
        self._open = contextlib.ExitStack()
        with refused(), usable({"workdir": workdir}), contextlib.ExitStack() as opened:
            if not read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            opened.enter_context(quiet_orbax())
            path = opened.enter_context(plain_path(self.folder))
            self._manager = ocp.CheckpointManager(path, options=options, item_names=(*TREES, "data", "config"))
            self._open = opened.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # An error of the last save must not be lost, nor hide the error that ends the run.
        with self._open:
            if self._manager is None:
                return
            try:
                self._write(lambda: self._manager.close())
            except RunError:
                if kind is None or not issubclass(kind, Exception):
                    raise

    def wait(self) -> None:
        """Wait until the last save is on disk."""
        self._write(lambda: self._manager.wait_until_finished())

    def _write(self, action: Callable[[], object]) -> None:
        """Turn any error of Orbax and TensorStore into a `RunError` of one line, after which the manager is closed."""
        try:
            return action()
        except Exception as error:
            cause = root_cause(error)
        with quiet_remains():
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = None
        good = self._steps()
        raise RunError(
            f"a checkpoint could not be written to {self._workdir}: {cause}. The latest checkpoint is "
            f"{f'of step {good[-1]}' if good else 'missing'}; remove the cause, and start the run again"
        )

    def latest_step(self) -> int | None:
        """Step of the latest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def _steps(self) -> list[int]:
        """Steps of the checkpoints on disk, in ascending order."""
        try:
            return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())
        except OSError:
            return []

    def find(self, step: int | None) -> int:
        """The step, or for None the latest one; `RunError` if there is no checkpoint of it."""
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise RunError(f"there is no checkpoint in {self._workdir}: its run saved none")
        if step is not None and step not in steps:
            raise RunError(f"there is no checkpoint of step {step} in {self._workdir}; there are: {steps}")
        return steps[-1] if step is None else step

    def first_good(self, read: Callable[[int], Result], step: int | None = None) -> Result:
        """The result of `read` for a step; for None, for the latest step whose checkpoint is not damaged.

        Arguments:
            read: raises `DamagedError` for a damaged checkpoint.
            step: the only one to try.

        Raises:
            RunError: there is no checkpoint (of this step), or every one is damaged; all of them are named.
        """
        self.find(step)
        steps, damaged = sorted(self._manager.all_steps()), []
        with usable({"workdir": self.folder.parent}):
            for candidate in reversed(steps) if step is None else [step]:
                try:
                    result = read(candidate)
                except DamagedError as error:
                    damaged.append(candidate)
                    logger.warning("the checkpoint of step %d is damaged: %s", candidate, error)
                    problem = error
                else:
                    self._set_aside(damaged)
                    return result
        others = [other for other in steps if other not in damaged]
        raise RunError(
            f"no checkpoint can be read in {self._workdir}: {', '.join(f'step {x}' for x in damaged)} is damaged "
            f"({problem})" + (f"; there are others: {others}" if others else "; restore it from a copy, or start anew")
        )

    def _set_aside(self, steps: list[int]) -> None:
        """Move damaged checkpoints to `workdir/damaged`, so that these steps can be saved again."""
        if not steps or self._read_only:
            return
        if parallel.is_main():
            for step in steps:
                target = self.folder.parent / DAMAGED / str(step)
                while target.exists():
                    target = target.with_name(f"{target.name}-again")
                target.parent.mkdir(exist_ok=True)
                os.rename(self.folder / str(step), target)
                logger.warning("moved it to %s", shown(target))
        parallel.meet("damaged checkpoints are set aside")
        self._manager.reload()

    def save(self, config: ExperimentConfig, state: TrainState, data_state: Any) -> None:
        """Save the run as it stands after `state.step` steps; a step that is already saved is left alone."""
        step = int(state.step)
        if step == self.latest_step():
            return
        trees = {name: tree for name, tree in _items(state).items() if _has_values(tree)}
        args = {name: self._ocp.args.StandardSave(_without_empty(tree)) for name, tree in trees.items()}
        args["data"] = self._ocp.args.JsonSave({"state": data_state})
        args["config"] = self._ocp.args.JsonSave(to_json(config))

        def save():
            self._manager.wait_until_finished()
            if parallel.is_main():
                check_room(self.folder, 0.9 * checkpoint_bytes(config))
            self._manager.save(step, args=self._ocp.args.Composite(**args))

        self._write(save)

    def restore(
        self, config: ExperimentConfig, shardings: TrainState | None = None, extend: bool = False
    ) -> tuple[TrainState, Any]:
        """The latest run state that is not damaged, and the position in the data, as `save` took them.

        A damaged checkpoint is named in a warning and, unless `read_only`, moved to `workdir/damaged`.

        Arguments:
            config: of the run; fields in `memgpt_jax.training.changes.FREE` may differ from those of the checkpoint.
            shardings: how the state is to be split; default: it goes to the first device.
            extend: whether `training.steps` may be larger than when it was saved.

        Raises:
            RunError: the checkpoint is of another config, or no checkpoint can be read.
        """
        shapes = abstract_state(config)
        if shardings is not None:
            split = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
            shapes = jax.tree.map(split, shapes, shardings)

        def read(step: int) -> tuple[TrainState, Any]:
            self.verify(step)
            check_changes(self.config(step), config, step, extend, self._workdir)
            items = self.read(step, _items(shapes) | {"data": None})
            trees = {name: items[name] for name in TREES if name != "run"}
            return TrainState(**items["run"], **trees), items["data"]["state"]

        return self.first_good(read)

    def config(self, step: int) -> ExperimentConfig:
        """The config of a checkpoint; errors as in `read`. `RunError` if this version of the library cannot read it."""
        saved = self.read(step, {"config": None})["config"]
        with refused():
            return from_json(saved)

    def verify(self, step: int, items: tuple[str, ...] | None = None) -> None:
        """Raise `DamagedError` where files of a checkpoint are not as they were written.

        Arguments:
            step: which checkpoint.
            items: those that are about to be read; default: all. If several processes train together, each must call
                this for all items: the first process reads them for all.
        """
        problem = self._problem(step, items) if items is not None or parallel.is_main() else None
        damaged = problem is not None
        if items is None:
            damaged = parallel.agree(damaged)
        if damaged:
            raise DamagedError(problem or "the first process found it damaged")

    def _problem(self, step: int, items: tuple[str, ...] | None) -> str | None:
        folder = self.folder / str(step)
        try:
            names = checksums.recorded(folder)
            present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            unlisted = present - set(names) - {checksums.SUMS}
            if names and unlisted:
                return f"{checksums.SUMS} does not name {', '.join(sorted(unlisted))}"
            if items is not None:
                names = [name for name in names if "/" not in name or name.partition("/")[0] in items]
            checksums.verify(folder, names)
        except PermissionError:  # not damaged: the user must change the permissions
            raise
        except (DamagedError, OSError) as error:
            return one_line(error)
        return None

    def read(self, step: int, targets: dict[str, Any]) -> dict[str, Any]:
        """Some items of a checkpoint: trees like the given ones of shapes and dtypes, JSON values where that is None.

        Arrays without a sharding go to the first device.

        Raises:
            DamagedError: it cannot be read.
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
            raise DamagedError(
                f"{shown(self.folder / str(step))} cannot be read ({', '.join(targets)}): {one_line(error)}"
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
