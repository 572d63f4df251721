"""The rating that a user gives to a film: MovieLens, ml-latest-small, from scratch.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py movielens_rating --workdir runs/movielens_rating
         python experiments/evaluate.py runs/movielens_rating --split test
Time:    3.4 minutes, of which 1.5 of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  the last tenth of the ratings of 610 users (9,818): RMSE 0.844 (0.812 to 0.879), 0.842, 0.844, MAE 0.636,
         0.640, 0.640, seeds 0, 1, 2; each rating is predicted from all before it, also those of the test; the
         parameters of step 240 of 300
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
            max_tokens=None,
            every=60,
            metric="rmse",
            patience=4,
        ),
    )
