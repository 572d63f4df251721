"""The next film of a user: MovieLens, ml-latest-small, from scratch.

Command: MEMGPT_DATA=FOLDER python experiments/train.py movielens_next --workdir runs/movielens_next
         python experiments/evaluate.py runs/movielens_next/best --split test
Time:    7 minutes, of which 3 of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  the last ten films of 602 users (6,020 predictions): HR@10 0.119 (0.105 to 0.135), NDCG@10 0.067, MRR 0.062,
         seed 0 alone; the parameters of step 270 of 450, chosen by the loss on the validation
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
