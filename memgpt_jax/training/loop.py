"""Train a model, from the first step or from where an earlier process stopped."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memgpt_jax import data, models, parallel
from memgpt_jax.config import ExperimentConfig
from memgpt_jax.config_data import TaskConfig
from memgpt_jax.training.checkpoint import Checkpoints
from memgpt_jax.training.compilation import jitted_diagnostics, jitted_step
from memgpt_jax.training.errors import RunError, refused
from memgpt_jax.training.metrics import MetricsLog, Reporter, WallTime, read_metrics
from memgpt_jax.training.optimizer import check_trainable, parameter_names
from memgpt_jax.training.preflight import check_memory
from memgpt_jax.training.progress import progress
from memgpt_jax.training.state import TrainState, create, shardings
from memgpt_jax.training.watchdog import Watchdog
from memgpt_jax.training.workdir import StopSignals, locked


def train(config: ExperimentConfig, workdir: str | Path, *, print_progress: bool | None = None) -> dict[str, Any]:
    """Train in a folder until `training.steps` steps are done, then evaluate on held-out data.

    Called again with the same config after any interruption, it goes on from the last checkpoint, and parameters and
    logged losses come out bitwise equal to those of a run that was never interrupted. SIGTERM and SIGINT save, and end
    the process with exit code 0. A run that is finished returns its results again.

    Arguments:
        config: the experiment.
        workdir: the folder, made if missing, that gets checkpoints/, tokenizer/, metrics.jsonl, tensorboard/ and
            evaluation.json.
        print_progress: whether to draw a progress bar; default: if standard output is a terminal. What the run will
            take (`memgpt_jax.training.preflight`) is printed unless this is False.

    Returns:
        The last record of metrics.jsonl, with the results of `memgpt_jax.evaluate` under "evaluation".

    Raises:
        RunError: `parallel` does not fit the devices or the model, the devices have too little memory, another trainer
            is at work there, the folder holds a run with another config, its checkpoint cannot be read, its data is
            refused, the tokenizer does not fit the model, or `training.max_skipped` updates in a row were skipped.
    """
    workdir = Path(workdir).expanduser().absolute()
    if config.pretrained is not None:
        from memgpt_jax.interop import starting  # against the order of the layers

        with refused():
            start = starting(config)
        config = start.config
    shown = parallel.is_main() and (sys.stdout.isatty() if print_progress is None else print_progress)
    with refused():
        mesh = parallel.make_mesh(config.parallel)
        parallel.check_divides(config, mesh)
        if config.optimizer.trainable:
            check_trainable(config.optimizer, models.shapes(config.model))
        found = check_memory(config, mesh)
    if parallel.is_main() and print_progress is not False:
        print(found, flush=True)
    with (
        jax.set_mesh(mesh),
        StopSignals() as signals,
        locked(workdir) if parallel.is_main() else contextlib.nullcontext(),
        Checkpoints(workdir, keep=config.training.keep_checkpoints) as checkpoints,
    ):
        # The order of restoring: config (must be equal), state, tokenizer, data position, metrics.jsonl (cut there).
        resumed = checkpoints.latest_step() is not None
        split = shardings(config, mesh)
        if resumed:
            state, data_state = checkpoints.restore(config, split)
        else:
            state, data_state = jax.jit(partial(create, config), out_shardings=split)(), None
            if config.pretrained is not None:
                with refused():
                    state = state._replace(params=jax.device_put(start.params(config), split.params))
                    if parallel.is_main():
                        start.keep_origin(workdir)
        with refused(), parallel.main_first("tokenizer"):
            tokenizer = load_tokenizer(config, workdir, resumed)
        if state.step < config.training.steps:
            (workdir / "evaluation.json").unlink(missing_ok=True)
            with refused(), parallel.main_first("data"):
                batches = data.train_batches(config.data, config.training, config.seed, tokenizer)
                if resumed:
                    batches.set_state(data_state)
            if not resumed:
                checkpoints.save(config, state, batches.get_state())
            with (
                MetricsLog(workdir, int(state.step)) if parallel.is_main() else contextlib.nullcontext() as log,
                progress(int(state.step), config.training.steps, shown) as advance,
            ):
                state = run(config, mesh, state, batches, checkpoints, log, advance, signals)
        evaluation = held_out(config, state.params, tokenizer, workdir)
        return read_metrics(workdir)[-1] | {"evaluation": evaluation}


def load_tokenizer(config: ExperimentConfig, workdir: Path, resumed: bool) -> Any:
    """The run's own tokenizer, kept in `workdir/tokenizer` from the start; None for tasks without text."""
    if config.text is None:
        return None
    if resumed:
        return data.load_saved_tokenizer(workdir / "tokenizer")
    tokenizer = data.load_tokenizer(config.text)
    added, what = data.added_ids(config.data, tokenizer), "answers" if isinstance(config.data, TaskConfig) else "marks"
    needed = tokenizer.vocab_size + added
    if needed > config.model.vocab_size:
        raise RunError(
            f"the tokenizer has {tokenizer.vocab_size} token ids{f' and there are {added} {what}' * bool(added)}, "
            f"but model.vocab_size is {config.model.vocab_size}; set model.vocab_size to at least {needed}"
        )
    (workdir / "tokenizer").mkdir(exist_ok=True)
    tokenizer.save(workdir / "tokenizer")
    return tokenizer


def run(
    config: ExperimentConfig,
    mesh: jax.sharding.Mesh,
    state: TrainState,
    batches: Iterator[dict[str, np.ndarray]],
    checkpoints: Checkpoints,
    log: MetricsLog | None,
    advance: Callable[[int, dict[str, Any] | None], None],
    signals: StopSignals,
) -> TrainState:
    """Take the steps that are left, logging and saving on the way.

    What step k reports is fetched when step k + 1 is under way, so that the device does not wait for the host; before
    a save it is fetched first, so that a checkpoint never runs ahead of `metrics.jsonl`. All this for each call of
    `training.steps_per_call` steps, which bears the number of its last one.
    """
    training = config.training
    together = training.steps_per_call
    step_function, diagnose = jitted_step(config, mesh), jitted_diagnostics(config, mesh)
    wall_time = WallTime()
    reporter = Reporter(config, parameter_names(state.params), log, advance, wall_time)
    signals.deferred = True
    pending = None
    with Watchdog(config.parallel.stall_seconds if jax.process_count() > 1 else 0) as watch:
        first = int(state.step) + together
        for step in range(first, training.steps + 1, together):
            with wall_time.spent("data"):
                batch = stack([next(batches) for _ in range(together * config.optimizer.accumulate_steps)])
                batch = parallel.split_rows(batch, mesh, batch_axis=1)
            logged = step % training.log_every == 0 or step == training.steps
            compiles = step == first or (logged and step < first + training.log_every)
            with wall_time.spent("compilation") if compiles else contextlib.nullcontext():
                diagnostics = diagnose(state.params, batch, state.memory) if logged else None
                state, metrics = step_function(state, batch)
            if pending is not None:
                reporter(*pending)
                watch.alive()
            pending = step, batch["tokens"].size, metrics, diagnostics
            stop = signals.received_anywhere(step)
            if stop or step % training.checkpoint_every == 0 or step == training.steps:
                reporter(*pending)
                pending = None
                watch.rest()
                with wall_time.spent("checkpoints"):
                    checkpoints.save(config, state, batches.get_state())
            if stop:
                raise SystemExit(0)
    signals.deferred = False
    return state


def stack(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Batches [B, L] as one [A, B, L]."""
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def held_out(config: ExperimentConfig, params: Any, tokenizer: Any, workdir: Path) -> dict[str, Any]:
    """The evaluation of a finished run, kept in `evaluation.json`."""
    from memgpt_jax.evaluate import evaluate

    path = workdir / "evaluation.json"
    if parallel.agree(path.exists()):
        return json.loads(path.read_text())
    result = evaluate(config, params, tokenizer)
    if parallel.is_main():
        whole = path.with_suffix(".tmp")
        whole.write_text(json.dumps(result, indent=2))
        os.replace(whole, path)
    return result
