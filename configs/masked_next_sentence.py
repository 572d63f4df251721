"""`masked` on pairs: which tokens are hidden, and does the second half follow the first? (Devlin et al., 2019)

Command: python experiments/train.py masked_next_sentence --workdir runs/masked_next_sentence
Time:    124 s of CPU time with everything (Python 3.11, jax 0.10.2, two busy cores of an AMD EPYC)
Result:  4.848 nats for each of 38,476 hidden tokens of held-out text, 25.9 % of which are told right, seed 0. A model
         that knows how frequent each token is: 6.112 nats. So few steps do not teach the other half: 51.1 % of 2,048
         pairs are told right, at 0.694 nats, which is guessing
"""

import dataclasses

from memgpt_jax.command_line import load_config
from memgpt_jax.config import ExperimentConfig


def config() -> ExperimentConfig:
    base = load_config("masked")
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, token_types=2, heads=("masked", "pooler", "next_sentence")),
        data=dataclasses.replace(base.data, objective="masked_next_sentence"),
        optimizer=dataclasses.replace(base.optimizer, learning_rate=1e-3),
        training=dataclasses.replace(base.training, steps=1500),
    )
