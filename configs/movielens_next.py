"""The next film of a user: MovieLens, ml-latest-small, from scratch.

Command: MEMGPT_DATA=FOLDER python experiments/train.py movielens_next --workdir runs/movielens_next
         python experiments/evaluate.py runs/movielens_next/best --split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.ratings import RatingsConfig


def config() -> ExperimentConfig:
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=3652,  # the start, the rare items and 3,650 films with at least five ratings
            d_model=64,
            num_layers=2,
            num_heads=2,
            window_size=50,
            segment_length=50,
            dropout=0.3,
            memory=KVMemoryConfig(memory_size=256),
        ),
        data=RatingsConfig(path="$MEMGPT_DATA/recommendation/ml-latest-small/ratings.csv.gz"),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50, weight_decay=0.1),
        training=TrainingConfig(steps=450, batch_size=16, sequence_length=200, carry_state=False, checkpoint_every=90),
        evaluation=EvaluationConfig(
            batch_size=16,
            chunk_length=100,
            max_documents=None,
            max_tokens=None,
            every=90,
            metric="loss",
            patience=4,
        ),
    )
