"""The type of a question: TREC by differentially private training, low-rank adapters and the head alone.

Needs the extra `private`. A text is private with epsilon = 8 and delta = 1e-5 (`PrivateConfig`).

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py trec_private --workdir runs/trec_private
         python experiments/evaluate.py runs/trec_private --split test
Time:    40 minutes of CPU time, 120 steps of about 200 texts (Python 3.11, jax 0.10.2, one core of an Intel
         Xeon, shared)
Result:  accuracy 0.918 on the 500 test questions, 0.861 on the validation tenth, seed 0 alone, from all-MiniLM-L6-v2;
         0.960 without privacy
"""

from memgpt_jax.config.experiment import ExperimentConfig, PrivateConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "data.sample_rows": 200,
        "model.backbone.adapter_rank": 8,
        "model.backbone.dropout": 0.0,
        "model.head.dropout": 0.0,
        "optimizer.trainable": ("head", "lora"),
        "optimizer.private": PrivateConfig(),
        "optimizer.learning_rate": 0.003,
        "training.batch_size": 256,
        "training.sequence_length": 64,
        "training.steps": 120,
    }
    return with_fields(load_config("trec"), changes)
