"""Train a model, from the first step or from where an earlier process stopped."""

import contextlib
import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from memgpt_jax import data, parallel
from memgpt_jax.checkpoint import BEST, Checkpoints, run_folder
from memgpt_jax.checkpoint.folder import check_space
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.corpora.sources import expand
from memgpt_jax.errors import RunError, refused, usable
from memgpt_jax.evaluation import check_evaluation
from memgpt_jax.files.paths import shown
from memgpt_jax.models.parameters import count_parameters
from memgpt_jax.training.compilation import compiled_step, jitted_diagnostics
from memgpt_jax.training.described import described
from memgpt_jax.training.device_memory import check_peak, in_bytes
from memgpt_jax.training.evaluation import held_out, kept_evaluation
from memgpt_jax.training.metrics import MetricsLog, Reporter, WallTime, read_metrics
from memgpt_jax.training.optimizer import learning_rate_schedule, parameter_names
from memgpt_jax.training.own_batches import Batches
from memgpt_jax.training.process.progress import progress
from memgpt_jax.training.process.watchdog import Watchdog
from memgpt_jax.training.process.workdir import StopSignals, locked
from memgpt_jax.training.saving import save_run
from memgpt_jax.training.start import (
    Hooks,
    Resumed,
    Setup,
    check_metrics,
    is_finished,
    open_batches,
    open_tokenizer,
    prepare,
    restore,
    steps_done,
)
from memgpt_jax.training.state import LossFunction, TrainState, checkpoint_bytes, create, shardings
from memgpt_jax.training.validation import Validation, read_validations


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
    returns its results again. A warning names a damaged checkpoint, and the last good one is restored.

    Args:
        config: the experiment. When a run is resumed, settings that do not change the results of training
            (`memgpt_jax.training.changes.FREE`) may differ from before. The paths of data and tokenizer may differ if
            their content is the same; `pretrained` may differ, because it is read only when a run begins. A run with
            evaluations during training keeps the settings of these, but for `every` and `patience`, and cannot be
            continued without `every`.
        workdir: the folder, made if missing, that gets checkpoints/, tokenizer/, metrics.jsonl, tensorboard/ and
            evaluation.json.
        batches: an endless iterator of `memgpt_jax.data.Batch` with `get_state` and `set_state`, see
            `memgpt_jax.training.Batches`; default: the batches of `config.data`. With it, no tokenizer is made or
            saved, and there is no held-out evaluation. Give the same iterator, at any position, to resume.
        loss_fn: the loss of one batch, see `memgpt_jax.training.LossFunction`; default: cross-entropy, and that of the
            teachers of `config.distill`. It is not saved: give the same function to resume.
        extend: continue a run with more `training.steps` than before. The remaining steps then follow the learning-rate
            schedule of the new number of steps, so after the end of a finished run the rate rises again.
        print_progress: whether to draw a progress bar; default: True if standard output is a terminal. The number of
            parameters and the memory on each device are printed unless this is False.

    Returns:
        The last record of metrics.jsonl, with the results of `memgpt_jax.evaluate` under "evaluation" (None with
        `batches`).

    Raises:
        RunError: before the first step: `parallel` does not fit the devices or the model, the devices have too little
            memory or the disk too little space, the folder cannot be used, another trainer uses it, it holds a run with
            another config or the best parameters of a run without checkpoints, no checkpoint can be read, the training
            or held-out data is not valid, or the tokenizer does not fit the model. Later: a file cannot be written,
            `training.max_skipped` updates in a row were skipped, or an evaluation finds outputs that are not finite;
            the latest checkpoint is then intact, and the run can be started again.
    """
    workdir = run_folder(workdir)
    draws = parallel.is_main() and (sys.stdout.isatty() if print_progress is None else print_progress)
    prints = parallel.is_main() and print_progress is not False
    with usable(_places(config, workdir)):
        return _train(config, workdir, Hooks(batches, loss_fn), extend, Output(draws, prints))


class Output(NamedTuple):
    """Output of a process on the terminal."""

    progress_bar: bool
    """Draw a progress bar; otherwise, log a line at each logged step."""
    report: bool
    """Print the number of parameters and the memory on each device."""


def _places(config: ExperimentConfig, workdir: Path) -> dict[str, Path]:
    """The folders that a run uses, by the names of the settings that hold their paths."""
    places = {"workdir": workdir}
    for name, part in (("data", config.data), ("data.text", config.text)):
        for field in ("path", "cache_dir"):
            if getattr(part, field, None):
                places.setdefault(f"{name}.{field}", expand(getattr(part, field)).absolute())
    if config.distill.cache is not None:
        places["distill.cache"] = expand(config.distill.cache).absolute()
    return places


def _train(config: ExperimentConfig, workdir: Path, hooks: Hooks, extend: bool, output: Output) -> dict[str, Any]:
    setup = prepare(config, hooks)
    config = setup.config
    with (
        jax.set_mesh(setup.mesh),
        StopSignals() as signals,
        locked(workdir) if parallel.is_main() else contextlib.nullcontext(),
        Checkpoints(workdir, keep=config.training.keep_checkpoints) as checkpoints,
    ):
        # The order of restoring: config (see `changes`), state, tokenizer, data position, metrics.jsonl (cut there).
        resumed = restore(setup, checkpoints, extend)
        tokenizer = open_tokenizer(setup, workdir, resumed)
        batches = open_batches(setup, workdir, tokenizer, resumed)
        if hooks.batches is None:
            known = is_finished(config, resumed) and kept_evaluation(config, workdir, tokenizer) is not None
            if not known:
                with refused(), parallel.main_first("evaluation data"):
                    check_evaluation(config, tokenizer)
        validation = None
        if hooks.batches is None and config.evaluation.every is not None:
            validation = Validation(config, tokenizer, workdir, steps_done(resumed))
        if validation is not None and resumed is not None:
            resumed = with_evaluation(config, resumed, validation)
        if resumed is not None and is_finished(config, resumed):
            params = resumed.state.params
        else:
            assert batches is not None  # open_batches gives none only to a finished run
            run_files = RunFiles(workdir, checkpoints)
            params = remaining_steps(setup, run_files, resumed, batches, signals, output, validation).params
        evaluation = None
        if hooks.batches is None:
            evaluation = held_out(config, best_params(workdir, params), tokenizer, workdir)
        return last_record(workdir, int(checkpoints.find(None))) | {"evaluation": evaluation}


def with_evaluation(config: ExperimentConfig, resumed: Resumed, validation: Validation) -> Resumed:
    """The resumed run after the evaluation of its step, before which it may have been killed or stopped."""
    stops = validation(steps_done(resumed), resumed.state.params)
    extended = resumed.config.training.steps != config.training.steps  # now: it continues from where it was stopped
    return resumed._replace(stopped=resumed.stopped or (stops and not extended))


def best_params(workdir: Path, params: Any) -> Any:
    """The parameters with the best evaluation during training, if there were any, else the given ones."""
    if not read_validations(workdir):
        return params
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), params)

    def read(step: int) -> Any:
        checkpoints.verify(step)
        return checkpoints.read(step, {"params": shapes})["params"]

    with Checkpoints(workdir / BEST, read_only=True) as checkpoints:
        return checkpoints.first_good(read)


class RunFiles(NamedTuple):
    """The files of a run."""

    workdir: Path
    """The folder of the run."""
    checkpoints: Checkpoints
    """The checkpoints in the folder."""


def remaining_steps(
    setup: Setup,
    files: RunFiles,
    resumed: Resumed | None,
    batches: Batches,
    signals: StopSignals,
    output: Output,
    validation: Validation | None = None,
) -> TrainState:
    """Compile, take the remaining steps of a run, and wait until the last checkpoint is on disk.

    Returns:
        The state after the last step.
    """
    config, done = setup.config, steps_done(resumed)
    check_files(config, files.workdir, done)
    wall_time = WallTime()
    with wall_time.spent("compilation"):
        step = compiled(setup)
    peak = check_peak(step.train, setup.limit)
    if output.report:
        print(report(setup, peak, resumed), flush=True)
    state = resumed.state if resumed is not None else first_state(setup, files, batches)
    if parallel.is_main():
        (files.workdir / "evaluation.json").unlink(missing_ok=True)
    with (
        MetricsLog(files.workdir, done) if parallel.is_main() else contextlib.nullcontext() as log,
        progress(done, config.training.steps, output.progress_bar) as advance,
    ):
        reporter = Reporter(config, parameter_names(state.params), log, advance, wall_time)
        state = run(
            config,
            step,
            state,
            batches,
            checkpoints=files.checkpoints,
            reporter=reporter,
            signals=signals,
            validation=validation,
        )
    files.checkpoints.wait()
    return state


def check_files(config: ExperimentConfig, workdir: Path, done: int) -> None:
    """Raise `RunError` if the disk lacks space for the checkpoints, or a resumed run has no metrics.jsonl."""
    saves = 1 + -(-(config.training.steps - done) // config.training.checkpoint_every)
    number = min(config.training.keep_checkpoints, saves) + 1  # plus the one being written
    check_space(workdir, checkpoint_bytes(config), number)
    if done:
        check_metrics(workdir, done)


class Step(NamedTuple):
    """The compiled functions of a run, and their fixed arguments."""

    train: jax.stages.Compiled
    """(state, batches, loss_fn) -> (state, metrics)."""
    diagnose: jax.stages.Wrapped
    """(params, batches, model state) -> diagnostics."""
    loss_fn: LossFunction | None
    """The third argument of `train`; None: cross-entropy."""
    mesh: jax.sharding.Mesh
    """The devices on which the functions run."""
    info: tuple[str, ...]
    """Names in `Batch.info` that the step was compiled with; those for evaluation alone (`group`, `answer`) are not."""


def compiled(setup: Setup) -> Step:
    """Compile the training step; the diagnostics are compiled when they are first used."""
    config, mesh = setup.config, setup.mesh
    loss_fn = as_argument(setup.hooks.loss_fn)
    train_step = compiled_step(config, mesh, call_shapes(config, setup.batch), loss_fn)
    return Step(train_step, jitted_diagnostics(config, mesh), loss_fn, mesh, tuple(setup.batch.info))


def report(setup: Setup, peak: int | None, resumed: Resumed | None) -> str:
    """Lines of text: parameters, memory on each device and, for an extended run, how the learning rate changes.

    Args:
        setup: the run.
        peak: bytes that the compiled step needs on each device; None: unknown.
        resumed: the run as it was restored; None: it begins.
    """
    needs = "" if peak is None else f"; the compiled step needs {in_bytes(peak)}"
    text = f"{count_parameters(setup.config.model):,} parameters; on each device: {setup.held}{needs}"
    if resumed is not None and resumed.config.training.steps != setup.config.training.steps:
        text += "\n" + extension(resumed.config, setup.config, steps_done(resumed))
    return text


def first_state(setup: Setup, files: RunFiles, batches: Batches) -> TrainState:
    """The state of a run that begins, saved as the checkpoint of step 0."""
    config, split = setup.config, shardings(setup.config, setup.mesh)
    state = jax.jit(functools.partial(create, config), out_shardings=split)()
    if setup.pretrained is not None:
        with refused():
            state = state._replace(params=jax.device_put(setup.pretrained.params(config), split.params))
            if parallel.is_main():
                setup.pretrained.keep_origin(files.workdir)
    elif isinstance(config.data, TaskConfig):
        with refused():
            descriptions = config.data.descriptions()
            if descriptions is not None:
                params = described(state.params, descriptions, config.seed)
                state = state._replace(params=jax.device_put(params, split.params))
    save_run(files.checkpoints, config, state, batches.get_state())
    files.checkpoints.wait()  # a checkpoint that cannot be written stops the run before the first step
    return state


def last_record(workdir: Path, steps: int) -> dict[str, Any]:
    """The last record of metrics.jsonl. Raises `RunError` if it is not that of step `steps`."""
    records = read_metrics(workdir)
    if not records or records[-1]["step"] != steps:
        raise RunError(
            f"{shown(workdir)} holds a finished run, and its metrics.jsonl has no record of the last step, "
            f"{steps}: restore the file from a copy"
        )
    return records[-1]


def extension(saved: ExperimentConfig, config: ExperimentConfig, done: int) -> str:
    """One line that reports how `extend` changes the learning rate."""

    def rate(config: ExperimentConfig, step: int) -> float:
        return float(learning_rate_schedule(config.optimizer, config.training.steps)(step - 1))

    return (
        f"extended from {saved.training.steps} to {config.training.steps} steps: from step {done + 1} the learning "
        f"rate follows the schedule of {config.training.steps} steps, {rate(saved, max(done, 1)):.3g} before, "
        f"{rate(config, done + 1):.3g} at step {done + 1}, {rate(config, config.training.steps):.3g} at the end"
    )


def as_argument(loss_fn: LossFunction | None) -> LossFunction | None:
    """The loss function as a pytree, which a compiled function takes as an argument."""
    return loss_fn if loss_fn is None or isinstance(loss_fn, jax.tree_util.Partial) else jax.tree_util.Partial(loss_fn)


def call_shapes(config: ExperimentConfig, batch: data.Batch) -> data.Batch:
    """The shapes [N A, B, ...] of the batches of one call, from one batch [B, ...]."""
    number = config.training.steps_per_call * config.optimizer.accumulate_steps
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((number, *x.shape), x.dtype), batch)


def run(
    config: ExperimentConfig,
    compiled: Step,
    state: TrainState,
    batches: Batches,
    *,
    checkpoints: Checkpoints,
    reporter: Reporter,
    signals: StopSignals,
    validation: Validation | None = None,
) -> TrainState:
    """Take the remaining steps; log every `training.log_every` steps and save every `training.checkpoint_every` steps.

    The metrics of step k are fetched after step k + 1 is dispatched, so that the device does not wait for the host.
    Before a save they are fetched first, so that a checkpoint is never ahead of `metrics.jsonl`. With
    `training.steps_per_call` > 1, each iteration takes this number of steps; its step number is that of the last.

    Args:
        config: the experiment.
        compiled: the compiled functions.
        state: the state after the last step that was taken; its arrays are donated.
        batches: the training batches from this step on.
        checkpoints: the checkpoints of the run.
        reporter: receives the metrics.
        signals: a signal that is received during a step stops the run after the step, once it is saved.
        validation: evaluates the parameters during training; None: no evaluations.

    Returns:
        The state after step `training.steps`, or after the step at which `validation` stopped the run.
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
                batch = batch._replace(info={name: batch.info[name] for name in compiled.info})
                batch = parallel.split_rows(batch, compiled.mesh, batch_axis=1)
            validated = config.evaluation.every is not None and step % config.evaluation.every == 0
            logged = step % training.log_every == 0 or step == training.steps or validated
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
            if validation is not None:
                with wall_time.spent("evaluation"):
                    stop = validation(step, state.params)
                if stop:
                    break
    signals.deferred = False
    return state


def stack(batches: list[data.Batch]) -> data.Batch:
    """Batches [B, ...] as one [A, B, ...]."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
