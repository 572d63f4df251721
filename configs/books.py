"""Whole public-domain books: `stdlib`'s model on prose. The folder holds train/, valid/ and test/.

Command: MEMGPT_DATA=FOLDER python experiments/train.py books --workdir runs/books
Time:    not measured yet
Result:  not measured yet; the baseline of as many parameters is `books_none`
"""

import dataclasses
import os

from memgpt_jax.command_line import load_config
from memgpt_jax.config import ExperimentConfig, TextConfig


def config() -> ExperimentConfig:
    folder = os.path.join(os.environ.get("MEMGPT_DATA", "../shared/data"), "books_pg")
    base = load_config("stdlib")
    return dataclasses.replace(
        base, data=TextConfig(corpus="folder", path=folder, tokenizer="bpe", tokenizer_vocab_size=2048)
    )
