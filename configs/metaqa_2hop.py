"""Questions over a knowledge graph, two triples from topic to answer: `metaqa` with two reads of the memory.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py metaqa_2hop --workdir runs/metaqa_2hop
         python experiments/evaluate.py runs/metaqa_2hop --split test --max-documents None
Time:    about 70 s of CPU time, and 31 s for the test questions (Python 3.11, jax 0.10.2, one core, shared)
Result:  2,974 test questions: Hits@1 0.969, 0.969, 0.968 (seeds 0, 1, 2), of 0.977 whose memory holds an answer; cited
         0.998 each, edited 0.992 each, kept 1.000 each. Baseline, paths by logistic regression: 0.955, on 744 of them
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "data.train": "$MEMGPT_DATA/kgqa/metaqa/2hop_dev.txt",
        "data.hops": 2,
        "data.training_graph_size": 128,
        "training.sequence_length": 32,
        "training.steps": 400,
    }
    return with_fields(load_config("metaqa"), changes)
