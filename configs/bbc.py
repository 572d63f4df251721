"""The topic of a news article: BBC, 5 classes, whole articles read in calls of 64 tokens with a memory.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py bbc --workdir runs/bbc
         python experiments/evaluate.py runs/bbc --split test
Time:    10 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  accuracy on the 445 test articles 0.982, 0.975, 0.973, macro F1 0.981, 0.975, 0.972, on the validation tenth
         0.966, 0.961, 0.978, seeds 0, 1, 2, from all-MiniLM-L6-v2 with a memory. Without memory
         (--model.backbone.memory none, 8 minutes) 0.978, 0.975, 0.980; in calls of 256 tokens
         (--model.call_length 256 --model.backbone.segment_length 256 --evaluation.chunk_length 256, too, 10 minutes)
         0.973, 0.975, 0.978. By the words of the article, seed 1, up to 235, 319, 460, 2,969: 0.982, 0.964, 0.982,
         0.973, without memory, by both, 0.982, 0.973, 0.982, 0.964: no difference. The pool of the head reads whole
         articles. 29 of the test articles are in the training split, too: BBC has them twice
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = LabelledTextConfig(
        train="$MEMGPT_DATA/classification/bbcnews_2225.jsonl.gz",
        test_every=5,
        max_length=1024,
    )
    return with_fields(load_config("imdb"), {"data": data, "training.steps": 240})
