"""BABILong"""

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
        training=TrainingConfig(steps=600, batch_size=32, sequence_length=256, carry_state=False),
        evaluation=EvaluationConfig(split="test", batch_size=8, num_batches=16, chunk_length=1024),
    )
