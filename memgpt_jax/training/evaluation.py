"""The evaluation of a finished run: its checks before the first step, and its results in `evaluation.json`."""

from pathlib import Path
from typing import Any

from memgpt_jax import parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import to_json
from memgpt_jax.data.examples.files import ExamplesConfig
from memgpt_jax.errors import RunError, refused, usable
from memgpt_jax.evaluation import evaluate
from memgpt_jax.files.paths import shown
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.files.sealed import seal, unseal

SETTINGS = "settings"
"""The field of evaluation.json that holds the `EvaluationConfig` of the results."""


def held_out(config: ExperimentConfig, params: Any, tokenizer: Any, workdir: Path) -> dict[str, Any]:
    """The evaluation of a finished run, kept in `evaluation.json` and repeated if `config.evaluation` has changed.

    Raises `RunError` if the data is not valid, or the outputs of the model are not finite.
    """
    kept = kept_evaluation(config, workdir)
    if parallel.broadcast_from_main(kept is not None):
        assert kept is not None
        return kept
    with refused():
        result = dict(evaluate(config, params, tokenizer))
    if parallel.is_main():
        replace_file(workdir / "evaluation.json", seal(result | {SETTINGS: to_json(config.evaluation)}) + "\n")
    return result


def kept_evaluation(config: ExperimentConfig, workdir: Path) -> dict[str, Any] | None:
    """The results in `evaluation.json`; None if there are none for the `EvaluationConfig` of the config.

    None also for examples from files, which may have changed.

    Raises `RunError` if the file is damaged.
    """
    result = read_evaluation(workdir)
    if isinstance(config.data, ExamplesConfig):
        return None
    if result is None or result.pop(SETTINGS, None) not in (None, to_json(config.evaluation)):
        return None
    return result


def read_evaluation(workdir: Path) -> dict[str, Any] | None:
    """The content of `evaluation.json`; None where there is none. Raises `RunError` if it is damaged or unreadable."""
    path = workdir / "evaluation.json"
    try:
        with usable({"workdir": workdir}):
            return unseal(path.read_bytes().decode().removesuffix("\n")) if path.exists() else None
    except ValueError as error:  # DamagedError, UnicodeDecodeError
        raise RunError(f"{shown(path)} is damaged: {error}. Delete it, and the run is evaluated again") from None
