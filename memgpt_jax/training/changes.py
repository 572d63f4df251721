"""The settings of a run that may change between two starts because they do not change the results of training."""

import re

from memgpt_jax import data
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import EXECUTION
from memgpt_jax.config.serialization import differences
from memgpt_jax.errors import RunError

FREE = (
    r"parallel\..+",
    r"training\.(log_every|checkpoint_every|keep_checkpoints|max_skipped)",
    r"evaluation\..+",  # `validation.check_settings` compares those of evaluations during training
    r"data\.(text\.)?(path|cache_dir|train|valid|test)",  # the saved position holds a fingerprint of the content
    r"data\.(text\.)?tokenizer",  # `check_tokenizer` compares the content
    r"distill\.(teachers|cache)",  # `distill.fingerprints` and `architectures` show another teacher
    r"pretrained",  # read only when a run begins; the fields of `model` show another architecture
    rf"model\.(\w+\.)*({'|'.join(sorted(EXECUTION))})",
)
"""Patterns of the fields that may change; with `extend`, `training.steps` may also grow."""


def check_changes(saved: ExperimentConfig, config: ExperimentConfig, done: int, extend: bool, workdir: str) -> None:
    """Raise `RunError` if a run cannot be continued with a config.

    Args:
        saved: the config of the run's checkpoint.
        config: the config of this start.
        done: the step of the checkpoint.
        extend: whether `training.steps` may be more than before.
        workdir: named in the message.
    """
    lines = {line.partition(": ")[0]: line for line in differences(saved, config)}
    changed = {name: line for name, line in lines.items() if not is_free(name)}
    steps = changed.get("training.steps")
    if steps is not None and config.training.steps < done:
        raise RunError(
            f"{workdir} holds a run that has taken {done} steps; training.steps={config.training.steps} must be at "
            f"least {saved.training.steps}, as before"
        )
    if steps is not None and extend and config.training.steps > saved.training.steps:
        del changed["training.steps"]
    if changed:
        lines = [f"{workdir} holds a run with another config. Restore these values, or choose another workdir:"]
        lines += [f"  {line}" for line in changed.values()]
        if "training.steps" in changed and config.training.steps > saved.training.steps:
            lines.append(
                "To train for more steps, give --extend (`extend=True`): the learning rate then follows the "
                "schedule of the new number of steps"
            )
        raise RunError("\n".join(lines))


def check_tokenizer(saved: ExperimentConfig, config: ExperimentConfig, tokenizer: data.Tokenizer, workdir: str) -> None:
    """Raise `RunError` if a config names another tokenizer than the run has; the path of the same one may change.

    Args:
        saved: the config of the run's checkpoint.
        config: the config of this start, with `text`.
        tokenizer: the tokenizer of the run.
        workdir: named in the message.

    Raises:
        ValueError: the tokenizer that `config` names cannot be read.
    """
    lines = [line for line in differences(saved, config) if re.match(r"data\.(text\.)?tokenizer: ", line)]
    named = data.tokenizer_of(config.data) if lines else None
    if named is not None and named.fingerprint != tokenizer.fingerprint:
        raise RunError(
            f"{workdir} holds a run with another tokenizer. Restore this value, or choose another workdir:\n"
            f"  {lines[0]}"
        )


def is_free(name: str) -> bool:
    """Whether the field of this dotted name may change between two starts."""
    return any(re.fullmatch(pattern, name) for pattern in FREE)
