"""A trained run, opened to use its model: config, parameters and tokenizer."""

from pathlib import Path
from typing import Any, NamedTuple

from memgpt_jax import models
from memgpt_jax.checkpoint.checkpoints import Checkpoints
from memgpt_jax.checkpoint.folder import run_folder
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.data.tokenizers.load import read_tokenizer
from memgpt_jax.errors import refused
from memgpt_jax.files.paths import shown

BEST = "best"
"""The sub-folder of a run for the parameters with the best validation."""


class Run(NamedTuple):
    """A trained run: see `load_run`."""

    config: ExperimentConfig
    """The experiment."""
    params: Any
    """Parameters of the model `config.model`: nested dictionaries of float32 arrays."""
    tokenizer: Tokenizer | None
    """The tokenizer of the run; None if it has none: a generated task without text, or batches of the caller's own."""
    step: int
    """The training step after which the parameters were saved."""


def load_run(workdir: str | Path, step: int | None = None) -> Run:
    """Open a run that `memgpt_jax.train` made. The optimizer's and the model's state are not read.

    Args:
        workdir: the folder of the run.
        step: the step of the checkpoint; default: the best of the run's validations (`evaluation.every`), else the
            latest checkpoint that is not damaged. Damaged checkpoints are named in warnings.

    Returns:
        Config, parameters, tokenizer and step.

    Raises:
        RunError: there is no such checkpoint, or the checkpoint or the tokenizer cannot be read.
    """
    with Checkpoints(_checkpoints_folder(run_folder(workdir), step), read_only=True) as checkpoints:

        def read(step: int) -> tuple[ExperimentConfig, Any, int]:
            checkpoints.verify(step, ("params", "config"))
            config = checkpoints.config(step)
            return (
                config,
                checkpoints.read(step, {"params": models.functional(config.model).param_shapes()})["params"],
                step,
            )

        config, params, step = checkpoints.first_good(read, step)
    return Run(config, params, _tokenizer(config, workdir), step)


def check_run(workdir: str | Path, step: int | None = None) -> None:
    """Raise `RunError` unless a folder holds a run that `load_run` can open at this step. No array is read."""
    with Checkpoints(_checkpoints_folder(run_folder(workdir), step), read_only=True) as checkpoints:
        checkpoints.find(step)


def _checkpoints_folder(workdir: Path, step: int | None) -> Path:
    """The folder of the run, or its sub-folder `best` if that has the step, for None any complete step."""
    best = workdir / BEST
    kept = [int(path.name) for path in best.glob("checkpoints/*") if path.name.isdecimal()]
    own = step is not None and (workdir / "checkpoints" / str(step)).is_dir()
    return best if kept and (step is None or step in kept) and not own else workdir


def _tokenizer(config: ExperimentConfig, workdir: str | Path) -> Tokenizer | None:
    with refused():
        has_tokenizer = config.text is not None and _tokenizer_folder(workdir).exists()
        return load_run_tokenizer(workdir) if has_tokenizer else None


def _tokenizer_folder(workdir: str | Path) -> Path:
    """The folder of a run's tokenizer; for the sub-folder `best` of a run, that of the run."""
    folder = run_folder(workdir)
    own = folder / "tokenizer"
    return folder.parent / "tokenizer" if folder.name == BEST and not own.exists() else own


def load_run_tokenizer(workdir: str | Path) -> Tokenizer:
    """The tokenizer of a run. Raises `ValueError` if it is missing, damaged or cannot be read."""
    folder = _tokenizer_folder(workdir)
    try:
        return read_tokenizer(folder)
    except OSError as error:
        raise ValueError(f"the tokenizer in {shown(folder)} cannot be read: {error}") from None
