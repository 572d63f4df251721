"""A training objective of your own: a config, a class with `shapes` and `change`, one line. This file is also a config.

    python experiments/train.py tests/examples/delayed_objective.py --workdir runs/delayed --data.objective.delay 40

At each token of running text the model predicts the token that it read `delay` tokens before. With a delay beyond the
window, only a memory can solve it.
"""

import dataclasses
from typing import ClassVar

import numpy as np

import memgpt_jax as mg
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.objectives import ObjectiveConfig
from memgpt_jax.studies.command_line import load_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class DelayedConfig(ObjectiveConfig):
    """Predict the token that was read `delay` tokens before. Needs a decoder."""

    causal: ClassVar[bool] = True

    delay: int = 100
    """Distance in tokens."""

    def __post_init__(self):
        if self.delay < 1:
            raise ValueError(f"delay must be at least 1, got {self.delay}")


class Delayed(mg.Objective[DelayedConfig]):
    """Rows of running text; targets are earlier tokens of the same row and document."""

    def shapes(self, rows: int, length: int) -> Batch:
        shape = (rows, length)
        return zeros({"tokens": (shape, np.int32), "reset": (shape, bool)}, {"tokens": shape})

    def change(self, rng: np.random.Generator, batch: Batch, tokenizer) -> Batch:
        tokens, reset, delay = batch.inputs["tokens"], batch.inputs["reset"], self.config.delay
        document = np.cumsum(reset, axis=1)
        same = np.zeros(tokens.shape, bool)
        same[:, delay:] = document[:, delay:] == document[:, :-delay]
        targets = np.where(same, np.roll(tokens, delay, axis=1), 0).astype(np.int32)
        return Batch(batch.inputs, {"tokens": targets}, {"tokens": same.astype(np.float32)}, {})


mg.register_objective("delayed", DelayedConfig, Delayed)


def config() -> mg.ExperimentConfig:
    base = load_config("stdlib")
    return dataclasses.replace(base, data=dataclasses.replace(base.data, objective=DelayedConfig()))
