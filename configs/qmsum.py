"""Summaries of meetings of about 9,300 words towards a query: QMSum, 60 of the training meetings, 35 with 272 queries.

Command: MEMGPT_DATA=FOLDER python experiments/train.py qmsum --pretrained MODEL --workdir runs/qmsum
         python experiments/evaluate.py runs/qmsum --split test
Time:    not measured: not run yet
Result:  ROUGE not measured: not run yet. Seconds a query of the first test meeting (15,398 words, 7 queries), measured
         with a random decoder of 2 layers of width 64 over bytes (docs/documents.md): 0.34 by one reading, 3.03 by
         reading the meeting again for each query, with equal answers, on two shared cores
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = DocumentQuestionsConfig(
        train="$MEMGPT_DATA/qmsum/train60.jsonl.gz",
        test="$MEMGPT_DATA/qmsum/val.jsonl.gz",
        form="qmsum",
        metrics=("rouge",),
        max_new_tokens=96,
        questions_per_reading=8,
        read_again=2,
    )
    changes = {
        "data": data,
        "model.memory.memory_size": 16384,
        "training.batch_size": 1,
        "training.skip_backward": True,
        "optimizer.accumulate_steps": 8,
    }
    return with_fields(load_config("fairytaleqa"), changes)
