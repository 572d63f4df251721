"""Sentiment of whole film reviews: IMDB, read in calls of 64 tokens, the memory carried from call to call.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py imdb --workdir runs/imdb
         python experiments/evaluate.py runs/imdb --split test
         python experiments/evaluate.py runs/imdb --split test --lengths 32 64 128 256
         in calls of 256 tokens without memory: --model.backbone.memory none --model.call_length 256
         --model.backbone.segment_length 256 --evaluation.chunk_length 256
Time:    55 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  accuracy on the 1,000 test reviews 0.883, on the validation tenth 0.902; of their first 32, 64, 128 and 256
         tokens 0.733, 0.785, 0.844 and 0.863; seed 0 alone, from all-MiniLM-L6-v2 (22.6 million parameters) with a
         memory.
         In calls of 256 tokens without memory, the reviews whole 0.894, on the validation tenth 0.892; of the first
         32, 64, 128 and 256 tokens, in one call, 0.735, 0.798, 0.844 and 0.873. By the words of the reviews, up to
         125, 173, 277 and 1,601: 0.889, 0.920, 0.887, 0.880. Seed 0 alone. So calls of 64 tokens with a memory are a
         point above one call of 256, and a point below calls of 256 over the whole review, which the pool of the head
         reads.
         Baseline, TF-IDF: 0.880 by a linear SVM; by logistic regression 0.870, of the first 32, 64, 128 and 256 words
         0.707, 0.764, 0.818 and 0.853.
         With 600 steps: 0.877, validation 0.894; of the first 256 tokens 0.856, and in one call (--change
         evaluation.chunk_length=256 model.call_length=None data.max_length=256) 0.831: the model was trained in calls
         of 64 tokens
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = LabelledTextConfig(
        train="$MEMGPT_DATA/classification/imdb_6000.jsonl.gz",
        test_every=6,
        max_length=1024,
    )
    changes = {
        "data": data,
        "model.backbone.memory": KVMemoryConfig(memory_size=256),
        "model.backbone.fusion": "gated_add",
        "model.backbone.fusion_bias": 0.0,
        "model.call_length": 64,
        "training.steps": 1200,
        "training.batch_size": 8,
        "training.sequence_length": 256,
    }
    return with_fields(load_config("sst2"), changes)
