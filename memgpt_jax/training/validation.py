"""Evaluations during training: the best parameters are kept, and a run that no longer improves is stopped."""

import json
import math
from pathlib import Path
from typing import Any

from memgpt_jax import data, parallel
from memgpt_jax.checkpoint import BEST, Checkpoints
from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import to_json
from memgpt_jax.evaluation import evaluate
from memgpt_jax.files.replacement import replace_file

RECORDS = "validations.jsonl"
LOWER_IS_BETTER = (
    "loss",
    "unigram_loss",
    "next_sentence_loss",
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
"""Metrics of which a lower value is better; of all others, a higher one."""


class Validation:
    """The evaluations of a run every `evaluation.every` steps and after the last: lines of validations.jsonl."""

    def __init__(self, config: ExperimentConfig, tokenizer: data.Tokenizer | None, workdir: Path, done: int):
        """Args: done: steps that the run has taken; records of later steps are removed."""
        self.config, self.tokenizer, self.workdir = config, tokenizer, workdir
        self.records = [record for record in read_validations(workdir) if record["step"] <= done]

    def __call__(self, step: int, params: Any) -> bool:
        """Evaluate the parameters after every `evaluation.every` steps and after the last one, unless it has been done.

        Returns whether training stops here.

        Raises:
            ValueError: the results have no `evaluation.metric`.
        """
        settings = self.config.evaluation
        assert settings.every is not None
        due = step % settings.every == 0 or step >= self.config.training.steps
        if not due or any(record["step"] == step for record in self.records):
            return False
        result: dict[str, Any] = dict(evaluate(self.config, params, self.tokenizer))
        numbers = {name: value for name, value in result.items() if isinstance(value, int | float)}
        check(
            settings.metric in result,
            f"evaluation.metric={settings.metric!r} is not in the results; valid: {', '.join(numbers)}",
        )
        self.records.append({"step": step} | numbers)
        best = best_record(self.records, settings.metric)
        if best["step"] == step:
            self._keep(step, params)
        waited = sum(record["step"] > best["step"] for record in self.records)
        stops = settings.patience is not None and waited >= settings.patience
        self.records[-1]["stopped"] = stops
        if parallel.is_main():
            lines = "".join(json.dumps(record) + "\n" for record in self.records)
            replace_file(self.workdir / RECORDS, lines)
        return stops

    def _keep(self, step: int, params: Any) -> None:
        with Checkpoints(self.workdir / BEST, keep=1) as checkpoints:
            checkpoints.save(step, {"params": params}, {"config": to_json(self.config)})


def best_record(records: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """The first record with the best value of a metric; one in which it is undefined is the worst."""
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return min(records, key=lambda record: sign * record[metric] if metric in record else math.inf)


def read_validations(workdir: Path) -> list[dict[str, Any]]:
    """The records in validations.jsonl; [] if there is none."""
    path = workdir / RECORDS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def stopped_at(workdir: Path, done: int) -> bool:
    """Whether a run of `done` steps was stopped there because it no longer improved."""
    return any(record["step"] == done and record.get("stopped") for record in read_validations(workdir))
