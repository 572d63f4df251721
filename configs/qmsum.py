"""Summaries of meetings of about 9,300 words towards a query: QMSum, 60 of the training meetings, 35 with 272 queries.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py qmsum --pretrained MODEL --workdir runs/qmsum
         python experiments/evaluate.py runs/qmsum --split test
Time:    30 minutes of CPU time for 45 updates, 20 for two test meetings (Python 3.11, jax 0.10.2, one core of an AMD
         EPYC, shared)
Result:  the first two test meetings with 12 queries: ROUGE-1, -2, -L 0.190, 0.027, 0.161; seed 0 alone, from
         SmolLM2-135M-Instruct (4 bits a weight), trained on the turns of the queries alone (--data.context given
         --data.document_tokens 1024 --data.questions_per_reading 1 --model.memory.memory_size 1024
         --optimizer.accumulate_steps 4 --training.steps 100, stopped after 45) and evaluated with 4,096 entries
         (--change data.context=document data.read_again=None model.memory.memory_size=4096 evaluation.max_documents=2
         evaluation.max_tokens=16384 evaluation.batch_size=4). Baseline, sentences near the query by TF-IDF, all 272
         queries: 0.203, 0.041, 0.129. The evidence is 5,100 to 14,200 words before the query, and 4,096 entries hold
         about the last 3,000 words: the model answers without it. The same run with its window alone
         (model.memory.memory_size=0): 0.246, 0.027, 0.166. The same run with the nearest passages
         (data.context=nearest data.passages=8 data.read_again=None model.memory.memory_size=1024
         evaluation.max_documents=40 evaluation.batch_size=4; 11 minutes), 42 queries: 0.225, 0.041, 0.185.
         Seconds a query of the first test meeting (15,398 words, 7 queries), measured with a random decoder of 2 layers
         of width 64 over bytes (docs/documents.md): 0.34 by one reading, 3.03 by reading the meeting again for each
         query, with equal answers, on two shared cores
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
