"""Questions whose answers are spans of a paragraph: the published part of SQuAD 1.1, from a pretrained encoder.

27 of the 36 articles train, 9 of them are the test split, as in the baselines: every fourth article; of the 27, every
ninth is the validation split.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py squad --workdir runs/squad
         python experiments/evaluate.py runs/squad --split test
Time:    21 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  2,098 questions about the 9 test articles: exact match 0.480, 0.475, F1 0.609, 0.604; about the validation
         articles 0.583, 0.553 and 0.678, 0.667; seeds 0 and 2, from all-MiniLM-L6-v2 (22.6 million parameters)
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.questions import QuestionsConfig
from memgpt_jax.models.heads import SpanHeadConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = QuestionsConfig(
        train="$MEMGPT_DATA/squad/squad-dev-v1.1.part.json.gz",
        form="squad",
        test_every=4,
        valid_every=9,
        question_types=True,
    )
    changes = {
        "data": data,
        "model.backbone.token_types": 2,
        "model.backbone.segment_length": 256,
        "model.head": SpanHeadConfig(dropout=0.1),
        "training.steps": 500,
        "training.batch_size": 8,
        "training.sequence_length": 256,
        "optimizer.learning_rate": 0.0003,
        "evaluation.batch_size": 16,
        "evaluation.chunk_length": 256,
    }
    return with_fields(load_config("sst2"), changes)
