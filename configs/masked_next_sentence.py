"""`masked` on pairs: which tokens are hidden, and does the second half follow the first? (Devlin et al., 2019)

Command: python experiments/train.py masked_next_sentence --workdir runs/masked_next_sentence
Time:    469 s of CPU time with everything (Python 3.11, jax 0.10.2, one busy core of an AMD EPYC)
Result:  3.673, 3.593 and 3.749 nats for each of 38,476 hidden tokens of held-out text, 35 to 37 % of which are
         predicted correctly, seeds 0, 1, 2; 2.4 less than by knowing how frequent each token is, 6.112. Of 2,048 pairs
         66.1, 64.3 and 64.4 % are predicted correctly; 14 points more than by guessing, with a standard error of one.
         With --optimizer.learning_rate 2e-3: 3.100 nats and 57.9 %, seed 0
"""

import dataclasses

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.objectives import MaskedNextSentenceConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    base = load_config("masked")
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, token_types=2, heads=("masked", "pooler", "next_sentence")),
        data=dataclasses.replace(base.data, objective=MaskedNextSentenceConfig()),
        optimizer=dataclasses.replace(base.optimizer, learning_rate=1e-3),
        training=dataclasses.replace(base.training, steps=1500),
    )
