"""Summaries of stories of about 5,000 words towards a question, with four references: SQuALITY, 50 and 25 stories.

Command: MEMGPT_DATA=FOLDER python experiments/train.py squality --pretrained MODEL --workdir runs/squality
         python experiments/evaluate.py runs/squality --split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = DocumentQuestionsConfig(
        train="$MEMGPT_DATA/squality/train.jsonl",
        test="$MEMGPT_DATA/squality/dev.jsonl",
        form="squality",
        metrics=("rouge",),
        max_new_tokens=320,
        questions_per_reading=8,
        repetition_penalty=1.2,
    )
    changes = {
        "data": data,
        "model.memory.memory_size": 8192,
        "training.batch_size": 1,
        "training.skip_backward": True,
        "optimizer.accumulate_steps": 8,
    }
    return with_fields(load_config("fairytaleqa"), changes)
