"""The evaluation of a finished run: whether it can be done, checked before the first step, and `evaluation.json`."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from memgpt_jax import data, parallel
from memgpt_jax.config import ExperimentConfig
from memgpt_jax.config_data import TaskConfig
from memgpt_jax.config_json import to_json
from memgpt_jax.training.errors import RunError
from memgpt_jax.training.sealed import seal, unseal
from memgpt_jax.training.workdir import readable

SETTINGS = "settings"
"""The field of evaluation.json that holds the `EvaluationConfig` of the results."""


def check_evaluation(config: ExperimentConfig, tokenizer: Any) -> None:
    """Open the held-out data, and make its first batch. Raises `ValueError` where the evaluation would."""
    settings = config.evaluation
    if isinstance(config.data, TaskConfig):
        task = data.make_task(config.data, settings.split, tokenizer)
        length = config.row_length or config.training.sequence_length
        next(iter(task.held_out(0, settings.batch_size, length, settings.num_batches)))
    elif config.data.objective == "causal":
        data.documents(config.data, settings.split, tokenizer)
    else:
        rows = dataclasses.replace(config.training, batch_size=settings.batch_size)
        next(data.text_batches(config.data, rows, 0, tokenizer, settings.split))


def held_out(config: ExperimentConfig, params: Any, tokenizer: Any, workdir: Path) -> dict[str, Any]:
    """The evaluation of a finished run, kept in `evaluation.json`, and made anew under other settings."""
    from memgpt_jax.evaluate import evaluate

    kept = kept_evaluation(config, workdir)
    if parallel.agree(kept is not None):
        return kept
    result = evaluate(config, params, tokenizer)
    if parallel.is_main():
        path = workdir / "evaluation.json"
        whole = path.with_suffix(".tmp")
        whole.write_text(seal(result | {SETTINGS: to_json(config.evaluation)}) + "\n")
        os.replace(whole, path)
    return result


def kept_evaluation(config: ExperimentConfig, workdir: Path) -> dict[str, Any] | None:
    """The results in `evaluation.json`; None where there are none under the settings of the config.

    Raises `RunError` if the file is damaged.
    """
    result = read_evaluation(workdir)
    if result is None or result.pop(SETTINGS, None) not in (None, to_json(config.evaluation)):
        return None
    return result


def read_evaluation(workdir: Path) -> dict[str, Any] | None:
    """The content of `evaluation.json`; None where there is no such file. Raises `RunError` if it is damaged."""
    path = workdir / "evaluation.json"
    try:
        return unseal(path.read_bytes().decode().removesuffix("\n"))
    except FileNotFoundError:
        return None
    except ValueError as error:  # DamagedError, UnicodeDecodeError
        raise RunError(f"{readable(path)} is damaged: {error}. Delete it, and the run is evaluated again") from None
