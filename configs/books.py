"""Whole public-domain books: `stdlib`'s model on prose. The folder holds train/, valid/ and test/.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py books --workdir runs/books
Time:    140 s of CPU time with everything (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  100 books for training, bits per byte on the first 8,192 tokens of 10 held-out books, seeds 0, 1, 2: 2.267,
         2.260, 2.236. The baseline of as many parameters, `books_none`: 2.370, 2.361, 2.357. By position, the memory
         gains (mean of the seeds): -0.05 from token 64 to 128, 0.00 to 256, 0.09 to 512, 0.08 to 1,024, 0.11 to
         2,048, 0.13 to 4,096, 0.11 to 8,192. (Below 64, ten titles: 0.13, and the seeds differ by 0.3.)
"""

import dataclasses

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    base = load_config("stdlib")
    return dataclasses.replace(
        base, data=TextConfig(corpus="folder", path="$MEMGPT_DATA/books_pg", tokenizer="bpe", tokenizer_vocab_size=2048)
    )
