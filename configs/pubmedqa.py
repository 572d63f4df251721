"""Yes, no or maybe: the answer of an abstract to its question. PubMedQA, 600 questions labelled by experts.

Every fourth question is a test question; `--data.test_fold` 0 to 3 gives the four parts of a cross-validation.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py pubmedqa --data.test_fold 0 --workdir runs/pubmedqa_0
         python experiments/evaluate.py runs/pubmedqa_0 --split test
Time:    8 minutes of CPU time a fold (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  not solved: accuracy on the test parts 0.540, 0.493, 0.507 and 0.480, mean 0.505 (validation tenths 0.578,
         0.556, 0.489 and 0.578), seed 0 alone, from all-MiniLM-L6-v2. The most frequent answer has 0.528, a linear SVM
         on TF-IDF 0.540 on one part. The training questions are learned (accuracy 0.92 to 0.98). By the first 256
         tokens, question first, in 100 steps at a rate of 2e-4, nothing but the most frequent answer was learned. A
         logistic regression on the states of a frozen SmolLM2-135M-Instruct after 288 tokens, context first: 0.512 by
         the last state, 0.522 by the mean (by a script that is not in this repository)
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = LabelledTextConfig(
        train="$MEMGPT_DATA/pubmedqa/pqal_600.json",
        text_column="CONTEXTS",
        more_columns=("QUESTION",),
        label_column="final_decision",
        test_every=4,
        max_length=160,
        truncation_side="left",
    )
    changes = {
        "data": data,
        "model.backbone.segment_length": 160,
        "training.steps": 120,
        "training.batch_size": 8,
        "training.sequence_length": 320,
        "evaluation.batch_size": 16,
        "evaluation.chunk_length": 160,
    }
    return with_fields(load_config("sst2"), changes)
