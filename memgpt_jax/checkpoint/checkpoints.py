"""Checkpoints in `workdir/checkpoints`: trees of arrays and JSON values. Orbax is imported when first used.

Each checkpoint consists of items that can be read alone: trees of arrays, such as `params`, and JSON values, such as
`config`. A checkpoint also has `SHA256SUMS`, the checksums of all its files, which is written before the checkpoint
gets its final name.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp

from memgpt_jax import parallel
from memgpt_jax.checkpoint.folder import check_room, run_folder
from memgpt_jax.checkpoint.orbax_files import quiet_orbax, quiet_remains, root_cause, summed_path
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import from_json
from memgpt_jax.errors import RunError, one_line, refused, usable
from memgpt_jax.files import checksums
from memgpt_jax.files.checksums import DamagedError
from memgpt_jax.files.paths import plain_path, shown

DAMAGED = "damaged"
"""The folder of a run to which damaged checkpoints are moved."""

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run; a context manager that waits at its end until the last save is on disk.

    A save returns once the arrays are copied. They are then written in the background, under a temporary name until the
    checkpoint is complete: a process that is killed meanwhile leaves the previous checkpoint as the latest.

    Every error of the disk raises `RunError`; an error of a background save, at the next call or at the end.
    """

    def __init__(self, workdir: str | Path, keep: int = 1, read_only: bool = False):
        """Open the checkpoints of a run.

        Args:
            workdir: the folder of the run.
            keep: the number of checkpoints to keep.
            read_only: True: write nothing; the folder must exist.
        """
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
            self._opened = ocp.CheckpointManager(path, options=options)
            self._open = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error of the last save must not be lost, nor hide the error that ends the run.
        with self._open:
            if self._opened is None:
                return
            try:
                self._write(lambda: self._manager.close())
            except RunError:
                if kind is None or not issubclass(kind, Exception):
                    raise

    @property
    def _manager(self):
        """Orbax's manager, which an error of the disk closes."""
        if self._opened is None:
            raise RunError(f"the checkpoints in {self._workdir} were closed by an earlier error; open them again")
        return self._opened

    def wait(self) -> None:
        """Wait until the last save is on disk."""
        self._write(lambda: self._manager.wait_until_finished())

    def _write(self, action: Callable[[], object]) -> None:
        """Run an action; on any error of Orbax or TensorStore, close the manager and raise a `RunError` of one line."""
        try:
            action()
            return
        except Exception as error:
            cause = root_cause(error)
        with quiet_remains():
            with contextlib.suppress(Exception):
                self._manager.close()
            self._opened = None
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
            raise RunError(f"there is no checkpoint of step {step} in {self._workdir}; valid: {steps}")
        return steps[-1] if step is None else step

    def first_good(self, read: Callable[[int], Result], step: int | None = None) -> Result:
        """The result of `read(step)`; without a step, for the latest checkpoint that is not damaged.

        Args:
            read: raises `DamagedError` for a damaged checkpoint.
            step: the only step to read; None: all, the latest first.

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
            f"no checkpoint can be read in {self._workdir}: {_list(damaged)} ({problem}); "
            + (f"other steps: {others}" if others else "restore one from a copy, or begin a new run in another workdir")
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
        parallel.barrier("damaged checkpoints are set aside")
        self._manager.reload()

    def save(self, step: int, trees: Mapping[str, Any], values: Mapping[str, Any], least_bytes: float = 0) -> None:
        """Save the checkpoint of a step; if there is one already, do nothing.

        Args:
            step: the step.
            trees: a tree of arrays for each item.
            values: a JSON value for each item.
            least_bytes: bytes that the checkpoint takes on disk at least; the save fails if the disk has less.
        """
        if step == self.latest_step():
            return
        args = {
            name: self._ocp.args.StandardSave(_without_empty(tree)) for name, tree in trees.items() if _has_values(tree)
        }
        args |= {name: self._ocp.args.JsonSave(value) for name, value in values.items()}

        def save():
            self._manager.wait_until_finished()
            if parallel.is_main():
                check_room(self.folder, least_bytes)
            self._manager.save(step, args=self._ocp.args.Composite(**args))

        self._write(save)

    def config(self, step: int) -> ExperimentConfig:
        """The config of a checkpoint. Raises like `read`, and `RunError` for an unknown type or field."""
        saved = self.read(step, {"config": None})["config"]
        with refused():
            return from_json(saved)

    def verify(self, step: int, items: tuple[str, ...] | None = None) -> None:
        """Raise `DamagedError` if files of a checkpoint differ from their recorded checksums.

        Args:
            step: the step of the checkpoint.
            items: the items to verify; default: all. If several processes train together, each must call this for all
                items: the first process verifies them for all.
        """
        problem = self._problem(step, items) if items is not None or parallel.is_main() else None
        damaged = problem is not None
        if items is None:
            damaged = parallel.broadcast_from_main(damaged)
        if damaged:
            raise DamagedError(problem or "the first process found the checkpoint damaged")

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
        """Some items of a checkpoint.

        Args:
            step: the step of the checkpoint.
            targets: for each item the tree of shapes and dtypes, with shardings or not, or None for a JSON value.
                Arrays without a sharding are placed on the first device.

        Returns:
            The arrays or the JSON value of each item.

        Raises:
            DamagedError: it cannot be read.
        """
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def with_sharding(leaf: Any):
            sharding = getattr(leaf, "sharding", None) or device
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        def args(target: Any):
            if target is None:
                return self._ocp.args.JsonRestore()
            return self._ocp.args.StandardRestore(_without_empty(jax.tree.map(with_sharding, target)))

        # Items without values, such as the state of an encoder without memory, were not saved.
        saved = {name: args(target) for name, target in targets.items() if target is None or _has_values(target)}
        try:
            restored = self._manager.restore(step, args=self._ocp.args.Composite(**saved))
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
            raise DamagedError(
                f"{shown(self.folder / str(step))} cannot be read ({', '.join(targets)}): {one_line(error)}"
            ) from error
        found = {name: restored[name] if name in saved else target for name, target in targets.items()}
        return {name: _with_empty(found[name], target) for name, target in targets.items()}


def _has_values(tree: Any) -> bool:
    return any(leaf.size for leaf in jax.tree.leaves(tree))


def _without_empty(tree: Any) -> Any:
    """The tree without arrays of size 0, such as those of a memory without entries, which Orbax refuses."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else (), tree)


def _with_empty(tree: Any, target: Any) -> Any:
    """The tree with the arrays of size 0 that `target` has; a JSON value (target None) is not changed."""
    if target is None:
        return tree
    return jax.tree.map(lambda leaf, value: value if leaf.size else jnp.zeros(leaf.shape, leaf.dtype), target, tree)


def _list(damaged: list[int]) -> str:
    """`step 4 is damaged`, `steps 4, 2 are damaged`."""
    number = ", ".join(map(str, damaged))
    return f"step {number} is damaged" if len(damaged) == 1 else f"steps {number} are damaged"
