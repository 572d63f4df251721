"""`masked` on pairs: which tokens are hidden, and does the second half follow the first? (Devlin et al., 2019)

Command: python experiments/train.py masked_next_sentence --workdir runs/masked_next_sentence
Time:    to be measured
Result:  to be measured
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
    )
