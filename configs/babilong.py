"""BABILong: what a bAbI story says, scattered over books, and asked for after any number of tokens.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py babilong --workdir runs/babilong
         python experiments/babilong.py runs/babilong --lengths 4096 32768 262144 --num-rows 32
         --change model.memory.memory_size=1024
         FOLDER/babi/en-10k is bAbI with 10,000 questions a task, unpacked; --data.path names another.
Time:    about 5 minutes for training, 9 for these 32 rows (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  task 1, test stories in held-out books, seeds 0, 1, 2, read with 1,024 entries a layer: 0.969, 0.969, 1.000 at
         4,096 tokens, 0.938, 0.781, 0.969 at 32,768 (32 answers each), 0.875, 0.438, 0.438 at 262,144 (16 answers); 3
         of 8 answers at 1,048,576 (seed 0): not solved far out. With the 128 entries of training (seed 0, 32 answers):
         0.969, 0.875, 0.375. Chance is 1/6 = 0.167
"""

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.babilong import BabiLongConfig


def config() -> ExperimentConfig:
    books = TextConfig(corpus="folder", path="$MEMGPT_DATA/books_pg", tokenizer_vocab_size=2048)
    data = BabiLongConfig(text=books, path="$MEMGPT_DATA/babi/en-10k")
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
