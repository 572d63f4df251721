"""BABILong: what a bAbI story says, scattered over books, and asked for after any number of tokens.

Command: MEMGPT_DATA=FOLDER python experiments/train.py babilong --workdir runs/babilong
         python experiments/babilong.py runs/babilong --lengths 256 4096 32768 --num-rows 64
         python experiments/babilong.py runs/babilong --lengths 262144 --num-rows 8    (1048576 has not been run)
         FOLDER/babi/en-10k is bAbI with 10,000 questions a task, unpacked; --data.path names another.
Time:    213 s of CPU time for training, 63 s for 64 rows of each of the three lengths, 39 s for 8 rows of 262,144
         (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  task 1, test stories in held-out books, seed 0 alone, 128 entries a layer, rows of 256 tokens in training:
         0.984 at 256 tokens, 0.984 at 4,096, 0.891 at 32,768 (64 answers each); 6 of 8 answers at 262,144.
"""

import os

from memgpt_jax.config import EvaluationConfig, ExperimentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config_data import TextConfig
from memgpt_jax.config_memory import KVMemoryConfig
from memgpt_jax.config_reading import BabiLongConfig


def config() -> ExperimentConfig:
    folder = os.environ.get("MEMGPT_DATA", "../shared/data")
    books = TextConfig(corpus="folder", path=os.path.join(folder, "books_pg"), tokenizer_vocab_size=2048)
    data = BabiLongConfig(text=books, path=os.path.join(folder, "babi", "en-10k"))
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=books.tokenizer_vocab_size + data.num_answers,
            d_model=64,
            num_layers=2,
            num_heads=4,
            window_size=12,
            segment_length=16,
            memory=KVMemoryConfig(memory_size=128, evict="lowest_gate", recency_bias=True),
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=800, batch_size=16, sequence_length=512, carry_state=False),
        evaluation=EvaluationConfig(split="test", batch_size=8, num_batches=16, chunk_length=1024),
    )
