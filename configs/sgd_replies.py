"""Replies in dialogues over several services: SGD, which of 20 turns the system says next, by the vectors of a
pretrained encoder that reads the last 64 tokens of a history.

The turns of the system in every fourth dialogue of the publisher's development set are the test split, 1,223 turns, as
in the baselines. Its services differ from those of training; the validation split is a tenth of the training dialogues.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py sgd_replies --workdir runs/sgd_replies
         python experiments/evaluate.py runs/sgd_replies --split test
         without training: python experiments/zero_shot.py sgd_replies --pretrained MODEL --evaluation.split test
         the last 128 tokens in calls of 64 with a memory, not run yet: --data.max_length 128 --model.call_length 64
         --training.sequence_length 128 --model.backbone.memory kv --model.backbone.fusion gated_add
         --model.backbone.fusion_bias 0
Time:    8 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  recall@1 on the 1,223 test turns 0.686 (95% interval 0.655 to 0.716), 0.693 and 0.689, MRR 0.806, 0.813 and
         0.809; on the validation dialogues 0.785, 0.770, 0.782 and 0.873, 0.864, 0.872; seeds 0, 1, 2, from
         all-MiniLM-L6-v2 (22.6 million parameters). Without training, by the last 128 tokens (--data.max_length 128),
         0.330 and 0.481; by the last 32 tokens 0.388 and 0.541
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.replies import RepliesConfig
from memgpt_jax.studies.command_line import load_config

FOLDER = "$MEMGPT_DATA/dialogue/sgd_multi"


def config() -> ExperimentConfig:
    data = RepliesConfig(
        train=f"{FOLDER}/train.jsonl.gz",
        test=f"{FOLDER}/dev.jsonl.gz",
        test_every=4,
        test_fold=3,
        reply_speaker="SYSTEM",
        max_length=64,
    )
    changes = {
        "data": data,
        "model.backbone.segment_length": 64,
        "training.steps": 250,
        "training.sequence_length": 64,
        "optimizer.learning_rate": 0.0001,
        "optimizer.warmup_steps": 30,
        "evaluation.chunk_length": 64,
    }
    return with_fields(load_config("cranfield"), changes)
