"""Summaries of stories of about 5,000 words towards a question, with four references: SQuALITY, 50 and 25 stories.

Command: MEMGPT_DATA=FOLDER python experiments/train.py squality --pretrained MODEL --workdir runs/squality
         python experiments/evaluate.py runs/squality --split test
Time:    32 minutes of CPU time for 31 updates (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared), with
         --data.document_tokens 2048 --data.questions_per_reading 5 --model.memory.memory_size 4096
         --optimizer.accumulate_steps 4; eight test stories with 8,192 entries and eight questions at once: above 45
Result:  not measured: no evaluation has been run to its end
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
