"""The evaluation of a finished run: its checks before the first step, and its results in `evaluation.json`."""

from pathlib import Path
from typing import Any

from memgpt_jax import data, parallel
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import to_json
from memgpt_jax.errors import RunError, refused, usable
from memgpt_jax.evaluation import evaluate
from memgpt_jax.files.paths import shown
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.files.sealed import seal, unseal

SETTINGS = "settings"
"""The field of evaluation.json that holds the `EvaluationConfig` of the results, and `CONTENT`."""
CONTENT = "content"
"""The digest of the data of the evaluation, among its settings."""


def held_out(config: ExperimentConfig, params: Any, tokenizer: Any, workdir: Path) -> dict[str, Any]:
    """The evaluation of a finished run, kept in `evaluation.json`; repeated if its settings or examples have changed.

    Raises `RunError` if the data is not valid, or the outputs of the model are not finite.
    """
    kept = kept_evaluation(config, workdir, tokenizer)
    if parallel.broadcast_from_main(kept is not None):
        assert kept is not None
        return kept
    with refused():
        result = dict(evaluate(config, params, tokenizer))
    if parallel.is_main():
        settings = _settings(config, tokenizer)
        replace_file(workdir / "evaluation.json", seal(result | {SETTINGS: settings}) + "\n")
    return result


def kept_evaluation(config: ExperimentConfig, workdir: Path, tokenizer: Any) -> dict[str, Any] | None:
    """The results in `evaluation.json`; None if there are none for these settings and these examples of a task.

    The documents of a corpus, which need not be there any more, are not compared.

    Raises `RunError` if the file is damaged, or the examples cannot be read.
    """
    result = read_evaluation(workdir)
    if result is None or result.pop(SETTINGS, None) != _settings(config, tokenizer):
        return None
    return result


def _settings(config: ExperimentConfig, tokenizer: Any) -> dict[str, Any]:
    """The settings of an evaluation, with a digest of the examples of a task."""
    settings = to_json(config.evaluation)
    if not isinstance(config.data, TaskConfig):
        return settings
    with refused():
        return settings | {CONTENT: data.content_of(config.data, config.evaluation.split, tokenizer)}


def read_evaluation(workdir: Path) -> dict[str, Any] | None:
    """The content of `evaluation.json`; None where there is none. Raises `RunError` if it is damaged or unreadable."""
    path = workdir / "evaluation.json"
    try:
        with usable({"workdir": workdir}):
            return unseal(path.read_bytes().decode().removesuffix("\n")) if path.exists() else None
    except ValueError as error:  # DamagedError, UnicodeDecodeError
        raise RunError(f"{shown(path)} is damaged: {error}. Delete it, and the run is evaluated again") from None
