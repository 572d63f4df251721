"""Evaluations during training: the best parameters are kept, and a run that no longer improves is stopped."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from memgpt_jax import data, parallel
from memgpt_jax.checkpoint import BEST, Checkpoints
from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig
from memgpt_jax.config.serialization import to_json
from memgpt_jax.errors import RunError, refused
from memgpt_jax.evaluation import evaluate
from memgpt_jax.files.paths import shown
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.training.evaluation import CONTENT

RECORDS = "validations.jsonl"
SETTINGS = "settings"
"""The field of a record that holds the settings of its evaluation, and the digest `CONTENT` of its data."""
WHEN = ("every", "patience")
"""Settings that do not change the result of an evaluation: they may differ when a run is resumed."""
LOWER_IS_BETTER = (
    "bits_per_byte",
    "perplexity_per_token",
    "perplexity_per_word",
    "rmse",
    "mae",
    "wer",
    "l1",
    "calibration_error",
    "preferred_error",
    "seconds_per_question",
    "seconds_per_question_read_again",
)
"""Metrics of which a lower value is better, beside those named `loss` or `*_loss`; of all others, a higher one."""


class Validation:
    """The evaluations of a run every `evaluation.every` steps and after the last: lines of validations.jsonl."""

    def __init__(self, config: ExperimentConfig, tokenizer: data.Tokenizer | None, workdir: Path, done: int):
        """Args: done: steps that the run has taken; records of later steps are removed.

        Raises `RunError` if the run has evaluations by other settings or on other data, with which new ones cannot be
        compared.
        """
        self.config, self.tokenizer, self.workdir = config, tokenizer, workdir
        self.records = [record for record in read_validations(workdir) if record["step"] <= done]
        with refused():
            content = data.content_of(config.data, config.evaluation.split, tokenizer)
        self._settings = settings_of(config.evaluation) | {CONTENT: content}
        check_settings(self.records, self._settings, workdir)

    def __call__(self, step: int, params: Any) -> bool:
        """Evaluate the parameters after every `evaluation.every` steps and after the last one, unless it has been done.

        Returns whether training stops here.

        Raises:
            RunError: the results have no `evaluation.metric`, it has been undefined in every evaluation, or the
                outputs of the model are not finite.
        """
        settings = self.config.evaluation
        assert settings.every is not None
        due = step > 0 and (step % settings.every == 0 or step >= self.config.training.steps)
        if not due or any(record["step"] == step for record in self.records):
            return False
        with refused():
            result: dict[str, Any] = dict(evaluate(self.config, params, self.tokenizer))
            numbers = {name: value for name, value in result.items() if isinstance(value, int | float)}
            check(
                settings.metric in result,
                f"evaluation.metric={settings.metric!r} is not in the results; valid: {', '.join(numbers)}",
            )
        self.records.append({"step": step} | numbers | {SETTINGS: self._settings})
        best = best_record(self.records, settings.metric)
        if math.isnan(best.get(settings.metric, math.nan)):
            raise RunError(
                f"evaluation.metric={settings.metric!r} is undefined for the outputs of step {step} on these examples "
                f"and was so before: no best parameters can be chosen; choose another of {', '.join(numbers)}"
            )
        if parallel.broadcast_from_main(best["step"] == step):  # times differ between processes
            self._keep(step, params)
        stops = parallel.broadcast_from_main(is_exhausted(self.records, settings))
        if parallel.is_main():
            lines = "".join(json.dumps(record) + "\n" for record in self.records)
            replace_file(self.workdir / RECORDS, lines)
        return stops

    def _keep(self, step: int, params: Any) -> None:
        folder = self.workdir / BEST
        with parallel.main_first("best parameters"):
            steps = [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdecimal()]
            if max(steps, default=0) >= step:  # of no record: Orbax saves no step that is not after the latest
                shutil.rmtree(folder)
        with Checkpoints(folder, keep=1) as checkpoints:
            checkpoints.save(step, {"params": params}, {"config": to_json(self.config)})


def settings_of(config: EvaluationConfig) -> dict[str, Any]:
    """The settings on which the results of an evaluation and the choice of the best one depend."""
    return {name: value for name, value in to_json(config).items() if name not in (*WHEN, "type")}


def check_settings(records: list[dict[str, Any]], settings: dict[str, Any], workdir: Path) -> None:
    """Raise `RunError` if a record was made with other settings or on other data."""
    for record in records:
        kept = record.get(SETTINGS, settings)  # earlier versions did not record them
        changed = [name for name in settings if kept.get(name, settings[name]) != settings[name]]
        if changed:
            lines = [
                "  the examples of the split have changed"
                if name == CONTENT
                else f"  evaluation.{name}: {kept[name]!r} before, now {settings[name]!r}"
                for name in changed
            ]
            raise RunError(
                f"{shown(workdir)} holds evaluations during training by other settings or on other data, which cannot "
                f"be compared with new ones. Restore these, or move {RECORDS} and {BEST}/ elsewhere to begin a new "
                "comparison at this step:\n" + "\n".join(lines)
            )


def best_record(records: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """The first record with the best value of a metric; one in which it is undefined or NaN is the worst."""
    sign = 1 if metric in LOWER_IS_BETTER or metric.split("_")[-1] == "loss" else -1

    def rank(record: dict[str, Any]) -> float:
        value = sign * record.get(metric, math.nan)
        return math.inf if math.isnan(value) else value

    return min(records, key=rank)


def read_validations(workdir: Path) -> list[dict[str, Any]]:
    """The records in validations.jsonl; [] if there is none."""
    path = workdir / RECORDS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_exhausted(records: list[dict[str, Any]], settings: EvaluationConfig) -> bool:
    """Whether the last `evaluation.patience` records are no improvement."""
    if settings.patience is None or not records:
        return False
    best = best_record(records, settings.metric)
    return sum(record["step"] > best["step"] for record in records) >= settings.patience


def stopped_at(workdir: Path, done: int, settings: EvaluationConfig) -> bool:
    """Whether `evaluation.patience` ends a run of `done` steps, which was evaluated after the last of them."""
    records = [record for record in read_validations(workdir) if record["step"] <= done]
    return bool(records) and records[-1]["step"] == done and is_exhausted(records, settings)


def check_begins(workdir: Path) -> None:
    """Raise `RunError` if the folder of a run that begins holds the best parameters of an earlier run."""
    found = [name for name in (RECORDS, f"{BEST}/") if (workdir / name).exists()]
    if parallel.broadcast_from_main(bool(found)):
        raise RunError(
            f"{shown(workdir)} holds no checkpoint, but {' and '.join(found)} of an earlier run, which would be taken "
            "for those of the new one: move them elsewhere, or choose another workdir"
        )


def check_continues(config: ExperimentConfig, workdir: Path) -> None:
    """Raise `RunError` if a run with evaluations during training is continued without them."""
    has_records = parallel.broadcast_from_main(bool(read_validations(workdir)))
    if config.evaluation.every is None and has_records:
        raise RunError(
            f"{shown(workdir)} holds evaluations during training, and the best of them chooses the parameters of the "
            f"run: set evaluation.every, or move {RECORDS} and {BEST}/ elsewhere to keep the last parameters"
        )
