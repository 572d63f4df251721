"""Train a model, from the first step or from where an earlier process stopped."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from memgpt_jax import data, models, parallel
from memgpt_jax.checkpoint import Checkpoints, load_run_tokenizer, run_folder
from memgpt_jax.checkpoint.folder import check_space
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.corpora.sources import expand
from memgpt_jax.errors import RunError, refused, usable
from memgpt_jax.evaluation import check_evaluation
from memgpt_jax.files.paths import shown
from memgpt_jax.memory import resolved
from memgpt_jax.models.parameters import count_parameters
from memgpt_jax.training.compilation import compiled_step, jitted_diagnostics
from memgpt_jax.training.device_memory import (
    check_evaluation_memory,
    check_held_bytes,
    check_peak,
    device_memory,
    held_bytes,
    in_bytes,
)
from memgpt_jax.training.evaluation import held_out, kept_evaluation
from memgpt_jax.training.metrics import MetricsLog, Reporter, WallTime, read_metrics
from memgpt_jax.training.optimizer import check_trainable, learning_rate_schedule, parameter_names
from memgpt_jax.training.own_batches import Batches, check_batches
from memgpt_jax.training.pretrained import pretrained_start
from memgpt_jax.training.process.progress import progress
from memgpt_jax.training.process.watchdog import Watchdog
from memgpt_jax.training.process.workdir import StopSignals, locked
from memgpt_jax.training.saving import restore_run, save_run
from memgpt_jax.training.state import LossFunction, TrainState, checkpoint_bytes, create, shardings


def train(
    config: ExperimentConfig,
    workdir: str | Path,
    *,
    batches: Batches | None = None,
    loss_fn: LossFunction | None = None,
    extend: bool = False,
    print_progress: bool | None = None,
) -> dict[str, Any]:
    """Train in a folder until `training.steps` steps are done, then evaluate on held-out data.

    Called again with the same config after any interruption, it resumes from the last checkpoint; parameters and
    logged losses are bitwise equal to those of a run that was never interrupted. SIGTERM and SIGINT save, and end
    the process with exit code 0 (SIGINT at a prompt or in a notebook: with `KeyboardInterrupt`). A run that is finished
    returns its results again. A damaged checkpoint is named in a warning, and the last good one is taken.

    Args:
        config: the experiment. When a run is resumed, settings that do not change the results of training
            (`memgpt_jax.training.changes.FREE`) may differ from before; data may move if its content is the same.
        workdir: the folder, made if missing, that gets checkpoints/, tokenizer/, metrics.jsonl, tensorboard/ and
            evaluation.json.
        batches: an endless iterator of `memgpt_jax.data.Batch` with `get_state` and `set_state`, see
            `memgpt_jax.training.Batches`; default: the batches of `config.data`. With it, no tokenizer is made or
            saved, and there is no held-out evaluation. Give the same iterator, at any position, to resume.
        loss_fn: the loss of one batch, see `memgpt_jax.training.LossFunction`; default: cross-entropy. It is not saved:
            give the same function to resume.
        extend: continue a run with more `training.steps` than before. The remaining steps then follow the learning-rate
            schedule of the new number of steps, so after the end of a finished run the rate rises again.
        print_progress: whether to draw a progress bar; default: if standard output is a terminal. The number of
            parameters and the memory on each device are printed unless this is False.

    Returns:
        The last record of metrics.jsonl, with the results of `memgpt_jax.evaluate` under "evaluation" (None with
        `batches`).

    Raises:
        RunError: before the first step: `parallel` does not fit the devices or the model, the devices have too little
            memory or the disk too little space, the folder cannot be used, another trainer uses it, it holds a run with
            another config, no checkpoint can be read, the training or held-out data is not valid, or the tokenizer does
            not fit the model. Later: a file cannot be written, or `training.max_skipped` updates in a row were skipped;
            the latest checkpoint is then intact, and the run can be started again.
    """
    workdir = run_folder(workdir)
    with usable(_places(config, workdir)):
        return _train(config, workdir, Hooks(batches, loss_fn), extend, print_progress)


class Hooks(NamedTuple):
    """What a caller of `train` replaces."""

    batches: Batches | None
    """Batches of the caller's own; None: those of `config.data`."""
    loss_fn: LossFunction | None
    """A loss of the caller's own; None: cross-entropy."""


def _places(config: ExperimentConfig, workdir: Path) -> dict[str, Path]:
    """The folders that a run uses, by the names of their settings."""
    places = {"workdir": workdir}
    for name, part in (("data", config.data), ("data.text", config.text)):
        for field in ("path", "cache_dir"):
            if getattr(part, field, None):
                places.setdefault(f"{name}.{field}", expand(getattr(part, field)).absolute())
    return places


def _train(
    config: ExperimentConfig, workdir: Path, hooks: Hooks, extend: bool, print_progress: bool | None
) -> dict[str, Any]:
    if config.pretrained is not None:
        with refused():
            start = pretrained_start(config)
        config = start.config
    draws = parallel.is_main() and (sys.stdout.isatty() if print_progress is None else print_progress)
    prints = parallel.is_main() and print_progress is not False
    with refused():
        mesh = parallel.make_mesh(config.parallel)
        parallel.check_divides(dataclasses.replace(config, model=resolved(config.model)), mesh)
        if config.optimizer.trainable:
            check_trainable(config.optimizer, models.functional(config.model).param_shapes())
        first = None if hooks.batches is None else check_batches(config, hooks.batches)
        held, limit = held_bytes(config, mesh, first), device_memory(mesh)
        check_held_bytes(held, limit)
        if first is None:
            check_evaluation_memory(config, limit)
    with (
        jax.set_mesh(mesh),
        StopSignals() as signals,
        locked(workdir) if parallel.is_main() else contextlib.nullcontext(),
        Checkpoints(workdir, keep=config.training.keep_checkpoints) as checkpoints,
    ):
        # The order of restoring: config (see `changes`), state, tokenizer, data position, metrics.jsonl (cut there).
        resumed = checkpoints.latest_step() is not None
        split = shardings(config, mesh)
        if resumed:
            state, data_state = restore_run(checkpoints, config, split, extend)
            saved = checkpoints.config(int(state.step))
        with refused(), parallel.main_first("tokenizer"):
            tokenizer = run_tokenizer(config, workdir, resumed) if hooks.batches is None else None
        done = int(state.step) if resumed else 0
        unfinished = done < config.training.steps
        if unfinished or saved.data != config.data:
            with refused(), parallel.main_first("data"):
                batches = hooks.batches
                if batches is None:
                    batches = data.train_batches(config.data, config.training, config.seed, tokenizer)
                if resumed:
                    set_position(config, batches, data_state)
        if hooks.batches is None and (unfinished or kept_evaluation(config, workdir) is None):
            with refused(), parallel.main_first("evaluation data"):
                check_evaluation(config, tokenizer)
        if unfinished:
            saves = 1 + -(-(config.training.steps - done) // config.training.checkpoint_every)
            number = min(config.training.keep_checkpoints, saves) + 1  # plus the one being written
            check_space(workdir, checkpoint_bytes(config), number)
            if done:
                check_metrics(workdir, done)
            wall_time = WallTime()
            with wall_time.spent("compilation"):
                shapes = call_shapes(
                    config, data.batch_shapes(config.data, config.training) if first is None else first
                )
                loss_fn = as_argument(hooks.loss_fn)
                step_function = compiled_step(config, mesh, shapes, loss_fn)
            peak = check_peak(step_function, limit)
            if prints:
                number = count_parameters(config.model)
                report = "" if peak is None else f"; the compiled step needs {in_bytes(peak)}"
                print(f"{number:,} parameters; on each device: {held}{report}", flush=True)
            if prints and resumed and saved.training.steps != config.training.steps:
                print(extension(saved, config, done), flush=True)
            if not resumed:
                state = jax.jit(functools.partial(create, config), out_shardings=split)()
                if config.pretrained is not None:
                    with refused():
                        state = state._replace(params=jax.device_put(start.params(config), split.params))
                        if parallel.is_main():
                            start.keep_origin(workdir)
                save_run(checkpoints, config, state, batches.get_state())
                checkpoints.wait()  # a checkpoint that cannot be written stops the run before the first step
            if parallel.is_main():
                (workdir / "evaluation.json").unlink(missing_ok=True)
            with (
                MetricsLog(workdir, done) if parallel.is_main() else contextlib.nullcontext() as log,
                progress(done, config.training.steps, draws) as advance,
            ):
                reporter = Reporter(config, parameter_names(state.params), log, advance, wall_time)
                step = Step(step_function, jitted_diagnostics(config, mesh), loss_fn, mesh)
                state = run(config, step, state, batches, checkpoints, reporter, signals)
            checkpoints.wait()
        evaluation = None if hooks.batches is not None else held_out(config, state.params, tokenizer, workdir)
        records = read_metrics(workdir)
        if not records or records[-1]["step"] != config.training.steps:
            raise RunError(
                f"{shown(workdir)} holds a finished run, and its metrics.jsonl has no record of the last step, "
                f"{config.training.steps}: restore the file from a copy"
            )
        return records[-1] | {"evaluation": evaluation}


def set_position(config: ExperimentConfig, batches: data.BatchIterator, position: Any) -> None:
    """Set the data to the saved position. Raises `ValueError` where the data is not that of the run."""
    try:
        batches.set_state(position)
    except ValueError as error:
        place = getattr(config.text or config.data, "path", None)
        raise ValueError(f"data.path={place!r}: {error}" if place else str(error)) from None


def extension(saved: ExperimentConfig, config: ExperimentConfig, done: int) -> str:
    """A line of text: how `extend` changes the learning rate."""

    def rate(config: ExperimentConfig, step: int) -> float:
        return float(learning_rate_schedule(config.optimizer, config.training.steps)(step - 1))

    return (
        f"extended from {saved.training.steps} to {config.training.steps} steps: from step {done + 1} the learning "
        f"rate follows the schedule of {config.training.steps} steps, {rate(saved, max(done, 1)):.3g} before, "
        f"{rate(config, done + 1):.3g} at step {done + 1}, {rate(config, config.training.steps):.3g} at the end"
    )


def run_tokenizer(config: ExperimentConfig, workdir: Path, resumed: bool) -> Any:
    """The run's own tokenizer, kept in `workdir/tokenizer` from the start; None for tasks without text."""
    if config.text is None:
        return None
    if resumed:
        return load_run_tokenizer(workdir)
    tokenizer = data.make_tokenizer(config.text)
    added, what = data.added_ids(config.data, tokenizer), "answers" if isinstance(config.data, TaskConfig) else "marks"
    needed = tokenizer.vocab_size + added
    if needed > config.model.vocab_size:
        raise RunError(
            f"the tokenizer has {tokenizer.vocab_size} token ids{f' and there are {added} {what}' * bool(added)}, "
            f"but model.vocab_size is {config.model.vocab_size}; set model.vocab_size to at least {needed}"
        )
    tokenizer.save(workdir / "tokenizer")
    return tokenizer


class Step(NamedTuple):
    """The compiled functions of a run."""

    train: jax.stages.Compiled
    """(state, batches, loss_fn) -> (state, metrics)."""
    diagnose: jax.stages.Wrapped
    """(params, batches, model state) -> diagnostics."""
    loss_fn: LossFunction | None
    """The third argument of `train`."""
    mesh: jax.sharding.Mesh
    """The devices."""


def as_argument(loss_fn: LossFunction | None) -> LossFunction | None:
    """The loss function as a pytree, which a compiled function takes as an argument."""
    return loss_fn if loss_fn is None or isinstance(loss_fn, jax.tree_util.Partial) else jax.tree_util.Partial(loss_fn)


def call_shapes(config: ExperimentConfig, batch: data.Batch) -> data.Batch:
    """The shapes [N A, B, ...] of the batches of one call, from one batch [B, ...]."""
    number = config.training.steps_per_call * config.optimizer.accumulate_steps
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((number, *x.shape), x.dtype), batch)


def check_metrics(workdir: Path, done: int) -> None:
    """Raise `RunError` if the metrics.jsonl of a run that is resumed after `done` steps is missing."""
    if parallel.broadcast_from_main((workdir / "metrics.jsonl").exists()):
        return
    raise RunError(
        f"{shown(workdir)} holds a run of {done} steps, but no metrics.jsonl: restore the file from a copy, or create "
        "an empty file to continue without the earlier records"
    )


def run(
    config: ExperimentConfig,
    compiled: Step,
    state: TrainState,
    batches: Iterator[data.Batch],
    checkpoints: Checkpoints,
    reporter: Reporter,
    signals: StopSignals,
) -> TrainState:
    """Take the remaining steps; log and save on the way.

    The metrics of step k are fetched after step k + 1 is dispatched, so that the device does not wait for the host;
    before a save they are fetched first, so that a checkpoint is never ahead of `metrics.jsonl`. All this once for each
    call of `training.steps_per_call` steps, which has the number of its last step.
    """
    training = config.training
    together = training.steps_per_call
    wall_time = reporter.wall_time
    signals.deferred = True
    pending = None
    with Watchdog(config.parallel.stall_seconds if jax.process_count() > 1 else 0) as watch:
        first = int(state.step) + together
        for step in range(first, training.steps + 1, together):
            with wall_time.spent("data"):
                batch = stack([next(batches) for _ in range(together * config.optimizer.accumulate_steps)])
                batch = parallel.split_rows(batch, compiled.mesh, batch_axis=1)
            logged = step % training.log_every == 0 or step == training.steps
            compiles = step == first or (logged and step < first + training.log_every)
            with wall_time.spent("compilation") if compiles else contextlib.nullcontext():
                diagnostics = compiled.diagnose(state.params, batch, state.model_state) if logged else None
                state, metrics = compiled.train(state, batch, compiled.loss_fn)
            if pending is not None:
                reporter(*pending)
                watch.alive()
            pending = step, batch.inputs["tokens"].size, metrics, diagnostics
            stop = signals.received_anywhere(step)
            if stop or step % training.checkpoint_every == 0 or step == training.steps:
                reporter(*pending)
                pending = None
                watch.rest()
                with wall_time.spent("checkpoints"):
                    save_run(checkpoints, config, state, batches.get_state())
            if stop:
                signals.end()
    signals.deferred = False
    return state


def stack(batches: list[data.Batch]) -> data.Batch:
    """Batches [B, ...] as one [A, B, ...]."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
