"""Summaries of stories of about 5,000 words towards a question, with four references: SQuALITY, 50 and 25 stories.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py squality --pretrained MODEL --workdir runs/squality
         python experiments/evaluate.py runs/squality --split test
Time:    32 minutes of CPU time for 31 updates (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared), with
         --data.document_tokens 2048 --data.questions_per_reading 5 --model.memory.memory_size 4096
         --optimizer.accumulate_steps 4; the evaluation of 4 stories: about 40
Result:  ROUGE-1, -2, -L 0.305, 0.041, 0.130 on 20 questions about 4 of the 25 test stories, of 4,246 to 6,572 words,
         SmolLM2-135M-Instruct (GGUF, Q4_1), seed 0, after these 31 updates, with --change evaluation.max_documents=4
         model.memory.memory_size=8192 data.repetition_penalty=1.2 data.read_again=None.
         The same run without its memory (model.memory.memory_size=0, the window alone): 0.122, 0.015, 0.072.
         The same run with the nearest passages (data.context=nearest data.passages=12 data.repetition_penalty=1.2
         data.read_again=None model.memory.memory_size=2048 evaluation.max_documents=20 evaluation.batch_size=4; 25
         minutes), 21 questions: 0.333, 0.050, 0.141.
         Baseline: sentences near the question by TF-IDF, all questions: 0.326, 0.056, 0.149
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
