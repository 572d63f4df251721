"""Summaries of meetings of about 9,300 words towards a query: QMSum, 60 of the training meetings, 35 with 272 queries.

Each query reads the eight passages of its meeting that are nearest by BM25. Whole meetings, read once for all queries:
--data.context document --data.questions_per_reading 8 --model.memory.memory_size 16384

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py qmsum --pretrained MODEL --workdir runs/qmsum
         python experiments/evaluate.py runs/qmsum --split test
Time:    62 minutes, two thirds of them for the 80 updates (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared);
         20 for the evaluation
Result:  ROUGE-1, -2, -L 0.267, 0.056, 0.195 on the first 42 queries about the test meetings (--change
         evaluation.max_documents=40), SmolLM2-135M-Instruct (GGUF, Q4_1), seed 0. Baseline, sentences near the query by
         TF-IDF, all 272 queries: 0.203, 0.041, 0.129.
         No trigram of tokens is twice in an answer. With repeated ones (data.no_repeat_ngram_size=None), five of six
         answers that were read end in a loop: 0.238, 0.043, 0.192 on the same queries. Chosen on the first 16 queries
         of the validation split (--split valid --change evaluation.max_documents=16): n-grams of 3 tokens 0.214, 0.038,
         0.167; of 4 tokens 0.213, 0.032, 0.172; without the limit 0.163, 0.021, 0.149, with a repetition penalty of 1.1
         in its place 0.203, 0.013, 0.137, of 1.2 0.202, 0.010, 0.115.
         Without the limit, trained on the turns of the queries alone (--data.context given --data.document_tokens 1024
         --training.steps 100, stopped after 45): 0.225, 0.041, 0.185 on these 42 queries by the nearest passages
         (--change data.context=nearest evaluation.max_documents=40). On the first two test meetings with 12 queries
         0.190, 0.027, 0.161 by whole meetings (--change data.context=document model.memory.memory_size=4096
         evaluation.max_documents=2 evaluation.max_tokens=16384), and 0.246, 0.027, 0.166 by the window alone
         (model.memory.memory_size=0): the evidence is 5,100 to 14,200 words before the query, and 4,096 entries hold
         about the last 3,000 words, so the model answers without it.
         Seconds a query of the first test meeting (15,398 words, 7 queries), measured with a random decoder of 2 layers
         of width 64 over bytes (docs/documents.md): 0.17 by one reading, 1.41 by reading the meeting again for each
         query, with equal answers, on two cores
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
        context="nearest",
        passages=8,
        max_new_tokens=96,
        no_repeat_ngram_size=3,
    )
    changes = {
        "data": data,
        "model.memory.memory_size": 1024,
        "training.batch_size": 1,
        "training.steps": 80,
        "training.skip_backward": True,
        "optimizer.accumulate_steps": 4,
    }
    return with_fields(load_config("fairytaleqa"), changes)
