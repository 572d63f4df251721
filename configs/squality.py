"""Summaries of stories of about 5,000 words towards a question, with four references: SQuALITY, 50 and 25 stories.

Each question reads the twelve passages of its story that are nearest by BM25. Whole stories, read once for all
questions: --data.context document --data.questions_per_reading 8 --model.memory.memory_size 8192

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py squality --pretrained MODEL --workdir runs/squality
         python experiments/evaluate.py runs/squality --split test
Time:    50 minutes for the 50 updates, 43 for the evaluation (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  ROUGE-1, -2, -L 0.368, 0.091, 0.208 on 41 of the 125 test questions (--change evaluation.max_documents=40),
         SmolLM2-135M-Instruct (GGUF, Q4_1), seed 0.
         Baseline: sentences near the question by TF-IDF, all questions: 0.326, 0.056, 0.149.
         No trigram of tokens is twice in an answer. With a repetition penalty of 1.2 in place of this limit
         (data.repetition_penalty=1.2 data.no_repeat_ngram_size=None): 0.294, 0.057, 0.153 on the same questions. Chosen
         on the first 12 questions of the validation split (--split valid --change evaluation.max_documents=12): n-grams
         of 3 tokens 0.332, 0.091, 0.196; of 4 tokens 0.296, 0.082, 0.188; of 3 tokens with a penalty of 1.1 0.328,
         0.079, 0.174; a penalty of 1.2 alone 0.279, 0.048, 0.137.
         With the penalty of 1.2, trained on the first 2,048 tokens of stories (--data.context document
         --data.document_tokens 2048 --data.questions_per_reading 5 --model.memory.memory_size 4096 --training.steps
         150, stopped after 31): 0.333, 0.050, 0.141 on 21 questions by the nearest passages (--change
         data.context=nearest model.memory.memory_size=2048 evaluation.max_documents=20); on 20 questions about 4
         stories of 4,246 to 6,572 words 0.305, 0.041, 0.130 by whole stories (--change model.memory.memory_size=8192
         evaluation.max_documents=4), and 0.122, 0.015, 0.072 by the window alone (model.memory.memory_size=0)
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
        context="nearest",
        passages=12,
        max_new_tokens=320,
        no_repeat_ngram_size=3,
    )
    changes = {
        "data": data,
        "model.memory.memory_size": 2048,
        "training.batch_size": 1,
        "training.steps": 50,
        "training.skip_backward": True,
        "optimizer.accumulate_steps": 4,
    }
    return with_fields(load_config("fairytaleqa"), changes)
