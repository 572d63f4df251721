"""The rating that a user gives to a film: MovieLens, ml-latest-small, from scratch.

Command: MEMGPT_DATA=FOLDER python experiments/train.py movielens_rating --workdir runs/movielens_rating
         python experiments/evaluate.py runs/movielens_rating/best --split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.ratings import RatingsConfig
from memgpt_jax.models.heads import ScalarHeadConfig


def config() -> ExperimentConfig:
    backbone = ModelConfig(
        vocab_size=3662,  # the start, the rare items, 3,650 films with at least five ratings, and ten ratings
        d_model=32,
        num_layers=2,
        num_heads=2,
        window_size=50,
        segment_length=50,
        dropout=0.2,
        memory=KVMemoryConfig(memory_size=256),
    )
    return ExperimentConfig(
        model=HeadedConfig(backbone=backbone, head=ScalarHeadConfig(pool="none", dropout=0.2)),
        data=RatingsConfig(
            path="$MEMGPT_DATA/recommendation/ml-latest-small/ratings.csv.gz", ask="rating", held_out=0.1
        ),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50, weight_decay=0.1),
        training=TrainingConfig(steps=300, batch_size=16, sequence_length=200, carry_state=False, checkpoint_every=60),
        evaluation=EvaluationConfig(
            batch_size=16,
            chunk_length=100,
            max_documents=None,
            max_tokens=None,
            every=60,
            metric="rmse",
            patience=4,
        ),
    )
