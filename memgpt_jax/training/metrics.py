"""The logs of a run: `workdir/metrics.jsonl`, one JSON object per logged step, and TensorBoard files."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from memgpt_jax.checkpoint import run_folder
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.errors import RunError, usable
from memgpt_jax.files.paths import shown
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.files.sealed import seal, unseal
from memgpt_jax.training.privacy import epsilon_of
from memgpt_jax.training.state import DistilledTotals
from memgpt_jax.training.step import StepMetrics
from memgpt_jax.training.tensorboard import EventLog

logger = logging.getLogger(__name__)


CLOCKED = ("tokens_per_second", "goodput", "data_share", "compilation_share", "checkpoints_share", "evaluation_share")
"""Fields of a record that depend on the machine; the same config reproduces all other fields exactly."""


class WallTime:
    """Wall time by purpose: steps, data, compilation, checkpoints, evaluation during training."""

    def __init__(self):
        self._since = time.perf_counter()
        self._seconds = {"data": 0.0, "compilation": 0.0, "checkpoints": 0.0, "evaluation": 0.0}

    @contextlib.contextmanager
    def spent(self, purpose: str) -> Iterator[None]:
        """Count the time of a block as `data`, `compilation`, `checkpoints` or `evaluation`; all other as steps."""
        start = time.perf_counter()
        yield
        self._seconds[purpose] += time.perf_counter() - start

    @property
    def evaluation(self) -> float:
        """Seconds of evaluation since the last call of `shares`."""
        return self._seconds["evaluation"]

    def shares(self) -> dict[str, float]:
        """Shares of the time since the last call: `data_share`, ..., and `goodput`, the share of steps."""
        now = time.perf_counter()
        total = now - self._since
        shares = {f"{purpose}_share": seconds / total for purpose, seconds in self._seconds.items()}
        self._since, self._seconds = now, dict.fromkeys(self._seconds, 0.0)
        return {"goodput": 1.0 - sum(shares.values())} | shares


class Reporter:
    """Turns the metrics of steps into log records, warnings about skipped updates, and the error that ends a run."""

    def __init__(
        self,
        config: ExperimentConfig,
        parameters: list[str],
        log: "MetricsLog | None",
        advance: Callable,
        wall_time: WallTime,
    ):
        self._max_skipped = config.training.max_skipped
        self._together = config.training.steps_per_call
        self._parameters = parameters
        self._log = log
        self._advance = advance
        self.wall_time = wall_time
        self._epsilon = epsilon_of(config)
        self._since = None  # the time at which `_tokens` was 0; None until the first step, which compiles, is done
        self._tokens = 0

    def __call__(self, step: int, tokens: int, metrics: StepMetrics, diagnostics: dict[str, jax.Array] | None) -> None:
        """Fetch the metrics of a call of the compiled step, and report them.

        Loss and accuracy are means since the last record. Diagnostics are means over all batches of the call
        (`optimizer.accumulate_steps` x `training.steps_per_call`), with the parameters from before the call.

        Args:
            step: the number of the last step of the call.
            tokens: the number of tokens of the call.
            metrics: those of `train_steps`.
            diagnostics: the diagnostics of the model; None: the step is not logged.

        Raises:
            RunError: `training.max_skipped` updates in a row were skipped, the last of them in this call.
        """
        metrics, diagnostics = jax.device_get((metrics, diagnostics))
        if metrics.skipped_in_a_row:
            name = f"step {step}" if self._together == 1 else f"steps {step - self._together + 1} to {step}"
            logger.warning("%s: update skipped: %s", name, fault(metrics, self._parameters))
        if metrics.skipped_in_a_row >= self._max_skipped:
            raise RunError(
                f"stopped at step {step}: {metrics.skipped_in_a_row} updates in a row were skipped: "
                f"{fault(metrics, self._parameters)}. The latest checkpoint holds the last good parameters"
            )
        now = time.perf_counter()
        self._tokens += tokens
        record = None
        if diagnostics is not None:
            speed = self._tokens / (now - self._since - self.wall_time.evaluation) if self._since else None
            lists = {name: value.tolist() for name, value in diagnostics.items()}
            private = {} if self._epsilon is None else {"epsilon": self._epsilon(step)}
            record = {
                "step": step,
                **summary(metrics),
                **private,
                "tokens_per_second": speed,
                **self.wall_time.shares(),
                **lists,
            }
            if self._log is not None:
                self._log.write(record)
        self._advance(step, record)
        if self._since is None or record:
            self._since, self._tokens = now, 0


def summary(metrics: StepMetrics) -> dict[str, float | int | None]:
    """The figures of a logged step; None if a denominator is 0 or a number is not finite.

    loss [nats per scored token], accuracy and bits_per_byte = sum of losses / ln 2 / bytes of the targets are means
    since the last logged step, without skipped steps; so is distillation, the loss that comes from teachers (w T^2 KL
    and that of hidden states).
    """
    totals = metrics.totals
    taught = {}
    if isinstance(totals, DistilledTotals):
        taught["distillation"] = ratio(totals.distillation, totals.weight)
    return {
        "loss": ratio(totals.loss, totals.weight),
        "bits_per_byte": ratio(totals.loss / math.log(2), totals.target_bytes),
        "accuracy": ratio(totals.correct, totals.weight),
        **taught,
        "learning_rate": float(metrics.learning_rate),
        "gradient_norm": float(metrics.gradient_norm) if np.isfinite(metrics.gradient_norm) else None,
        "skipped": int(metrics.skipped),
    }


def ratio(numerator: Any, denominator: Any) -> float | None:
    """numerator / denominator; None if the denominator is 0 or a number is NaN."""
    value = float(numerator) / float(denominator) if denominator else math.nan
    return None if math.isnan(value) else value


def fault(metrics: StepMetrics, parameters: list[str]) -> str:
    """What was not finite in a call with a skipped step, in words; `parameters` names those of `finite_gradients`."""
    if not metrics.finite_loss:
        return "the loss is not finite"
    if not metrics.finite_model_state:
        return "the loss is finite, but the new memory holds NaN or infinity"
    if metrics.finite_gradients.all():
        return "every gradient is finite, but their global norm overflows"
    bad = [name for name, finite in zip(parameters, metrics.finite_gradients, strict=True) if not finite]
    groups = dict.fromkeys(name.rpartition("/")[0] or name for name in bad)
    return f"the loss is finite, but the gradient of {', '.join(groups)} is not"


class MetricsLog:
    """Appends to `metrics.jsonl` and to TensorBoard; records after `step`, of an interrupted run, are removed first."""

    def __init__(self, workdir: Path, step: int):
        path = workdir / "metrics.jsonl"
        records = [record for record in read_metrics(workdir) if record["step"] <= step]
        replace_file(path, "".join(seal(record) + "\n" for record in records))
        self._path = path
        self._events = EventLog(workdir / "tensorboard", step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.nullcontext() if kind is None else contextlib.suppress(OSError):  # one error is enough
            self._events.close()

    def write(self, record: dict[str, Any]) -> None:
        """Log one record: numbers, lists of one number per layer, and lists of one histogram over [0, 1] per layer."""
        with open(self._path, "a") as file:
            file.write(seal(record) + "\n")
        self._events.write(record)


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The records of `workdir/metrics.jsonl`, oldest first; an incomplete last line is left out.

    Raises `RunError` if a line is damaged, or the file cannot be read.
    """
    path = run_folder(workdir) / "metrics.jsonl"
    with usable({"workdir": path.parent}):
        *lines, rest = (path.read_bytes() if path.exists() else b"").split(b"\n")
    if rest.endswith(b"}", 0, -1):  # a whole line, whose end is another character
        lines.append(rest)
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(unseal(line.decode()))
        except ValueError as error:  # DamagedError, UnicodeDecodeError
            raise RunError(
                f"line {number} of {shown(path)} is damaged: {error}. Delete the line to continue without it"
            ) from None
    return records
