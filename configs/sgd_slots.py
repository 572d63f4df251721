"""Slots of what users say in dialogues over several services: SGD, whole dialogues in calls of 64 tokens with a memory.

Words of the system are read as context; the tags of a dialogue are a linear chain (CRF). Every fifth dialogue is a test
dialogue, as in the baselines.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py sgd_slots --workdir runs/sgd_slots
         python experiments/evaluate.py runs/sgd_slots --split test
         without memory: --model.backbone.memory none
         in calls of 256 tokens without memory: --model.backbone.memory none --model.call_length 256
         --model.backbone.segment_length 256 --evaluation.chunk_length 256
Time:    32 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  F1 of slots on the 307 test dialogues 0.876 (precision 0.852, recall 0.901), on the validation tenth 0.860,
         seed 0, from all-MiniLM-L6-v2 (25.0 million parameters with the memory); without memory
         (22.6 million, 21 minutes) 0.872 and 0.866. Seed 1: 0.853 and 0.862, without memory 0.871 and 0.865. By the
         words of a dialogue, up to 221, 274, 334, 514: 0.837, 0.848, 0.858, 0.864, without memory 0.852, 0.868, 0.879,
         0.881 (seed 1): the memory does not help, also in long dialogues. In calls of 256 tokens without memory,
         seed 1: 0.891 (precision 0.862, recall 0.921), validation 0.905, by words 0.841, 0.924, 0.872, 0.920, 35
         minutes: the context of a longer call does help; calls of 64 tokens with a memory have 0.96 of its F1.
         With half of the steps and without the chain (--training.steps 600 --model.head.crf False): 0.783 and 0.768,
         16 minutes; without memory, too (22.6 million parameters, 12 minutes): 0.767 and 0.754
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = TaggedTextConfig(
        train="$MEMGPT_DATA/dialogue/sgd_multi/train.jsonl.gz",
        form="sgd",
        tag_column="slots",
        test_every=5,
        case_as_token_type=True,
    )
    changes = {
        "data": data,
        "model.backbone.memory": KVMemoryConfig(memory_size=256),
        "model.backbone.fusion": "gated_add",
        "model.backbone.fusion_bias": 0.0,
        "model.call_length": 64,
        "training.batch_size": 4,
        "training.sequence_length": 256,
        "model.head.crf": True,
        "training.steps": 1200,
        "optimizer.learning_rate": 0.0003,
    }
    return with_fields(load_config("wnut17"), changes)
