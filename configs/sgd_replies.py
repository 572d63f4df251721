"""Replies in dialogues over several services: SGD, which of 20 turns the system says next, by the vectors of a
pretrained encoder that reads the last 128 tokens of a history in calls of 64 with a memory.

The turns of the system in every fourth dialogue of the publisher's development set are the test split, 1,223 turns, as
in the baselines. Its services differ from those of training; the validation split is a tenth of the training dialogues.

Command: MEMGPT_DATA=FOLDER python experiments/train.py sgd_replies --workdir runs/sgd_replies
         python experiments/evaluate.py runs/sgd_replies --split test
         without training: python experiments/zero_shot.py sgd_replies --pretrained MODEL --evaluation.split test
         without memory: --model.backbone.memory none
Time:    not measured; without training 102 seconds of CPU time (Python 3.11, jax 0.10.2, Intel Xeon, shared)
Result:  not measured: not run yet. Without training, recall@1 on the 1,223 test turns 0.330, MRR 0.481, from
         all-MiniLM-L6-v2; by the last 32 tokens of each history (--data.max_length 32) 0.388 and 0.541
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.memory import KVMemoryConfig
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
    )
    changes = {
        "data": data,
        "model.backbone.segment_length": 64,
        "model.backbone.memory": KVMemoryConfig(memory_size=256),
        "model.backbone.fusion": "gated_add",
        "model.backbone.fusion_bias": 0.0,
        "model.call_length": 64,
        "training.steps": 300,
        "training.sequence_length": 128,
        "optimizer.learning_rate": 0.0001,
        "optimizer.warmup_steps": 30,
        "evaluation.chunk_length": 64,
    }
    return with_fields(load_config("cranfield"), changes)
