"""An encoder that says whether the second half of a text follows the first, or comes from another file.

Command: python experiments/train.py next_sentence --workdir runs/next_sentence
Time:    352 s of CPU time with everything (Python 3.11, jax 0.10.2, one busy core of an AMD EPYC)
Result:  of 2,048 pairs of held-out text, half of them true, 64.3, 60.1 and 64.6 % are predicted correctly, at 0.634,
         0.659 and 0.636 nats, seeds 0, 1, 2; 10 points and more over guessing, with a standard error of one. Nothing is
         learned in the first 200 steps
"""

import dataclasses

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.objectives import NextSentenceConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    base = load_config("masked_next_sentence")
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, heads=("pooler", "next_sentence")),
        data=dataclasses.replace(base.data, objective=NextSentenceConfig()),
    )
