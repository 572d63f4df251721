"""Questions over a knowledge graph, three triples from topic to answer: `metaqa` with three reads of the memory.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py metaqa_3hop --workdir runs/metaqa_3hop
         python experiments/evaluate.py runs/metaqa_3hop --split test --max-documents None
Time:    about 80 s of CPU time, and 37 s for the test questions (Python 3.11, jax 0.10.2, one core, shared)
Result:  2,854 test questions: Hits@1 0.975, 0.977, 0.958 (seeds 0, 1, 2), of 0.997 whose memory holds an answer; cited
         0.990, 0.994, 0.995, edited 0.978, 0.976, 0.978, kept 1.000, 0.998, 1.000. Baseline, paths by logistic
         regression: 0.816, on 238 of them
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "data.train": "$MEMGPT_DATA/kgqa/metaqa/3hop_dev.txt",
        "data.hops": 3,
        "data.training_graph_size": 256,
        "training.sequence_length": 32,
        "training.steps": 400,
    }
    return with_fields(load_config("metaqa"), changes)
