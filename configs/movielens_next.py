"""The next film of a user: MovieLens, ml-latest-small, from scratch.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py movielens_next --workdir runs/movielens_next
         python experiments/evaluate.py runs/movielens_next --split test
Time:    6 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  the last ten films of 602 users (6,020 predictions): HR@10 0.170, 0.165, 0.175 (95% interval of the first
         0.155 to 0.186), NDCG@10 0.090, 0.088, 0.092, MRR 0.079, 0.079, 0.080, seeds 0, 1, 2; on the 960 of the
         validation HR@10 0.148, 0.152, 0.174. Of seed 0 after 10 to 29, 30 to 64, 65 to 156 and 157 to 2,131 films
         HR@10 0.262, 0.199, 0.137 and 0.083. With an empty memory, at equal parameters (--model.memory.memory_size
         0), HR@10 0.174, 0.171, 0.176, NDCG@10 0.090, 0.090, 0.093, MRR 0.079, 0.080, 0.082; of seed 1 by the films
         before 0.260, 0.189, 0.148, 0.087, of seed 2 0.269, 0.193, 0.143, 0.097: the memory adds nothing. With
         embeddings that are drawn independently (--data.items_path None --training.steps 600) 0.150, 0.080 and 0.071,
         on the validation 0.140, seed 0 alone; with --data.drop 0.75 --training.steps 1000, too, 0.121 on the
         validation
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.ratings import RatingsConfig

FOLDER = "$MEMGPT_DATA/recommendation/ml-latest-small"


def config() -> ExperimentConfig:
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=3652,  # the start, the rare items and 3,650 films with at least five ratings
            d_model=192,
            num_layers=2,
            num_heads=4,
            window_size=50,
            segment_length=50,
            dropout=0.3,
            memory=KVMemoryConfig(memory_size=256),
        ),
        data=RatingsConfig(path=f"{FOLDER}/ratings.csv.gz", items_path=f"{FOLDER}/movies.csv.gz", drop=0.5),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=50, weight_decay=0.1),
        training=TrainingConfig(steps=360, batch_size=16, sequence_length=200, carry_state=False, checkpoint_every=120),
        evaluation=EvaluationConfig(
            batch_size=16,
            chunk_length=100,
            max_tokens=None,
            every=120,
            metric="loss",
            patience=4,
        ),
    )
