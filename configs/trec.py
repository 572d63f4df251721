"""The type of a question: TREC, six classes, from a pretrained encoder.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py trec --workdir runs/trec
         python experiments/evaluate.py runs/trec --split test
Time:    11 minutes of CPU time (Python 3.11, jax 0.10.2, two cores of an AMD EPYC, shared)
Result:  accuracy on the 500 test questions 0.960, 0.966, 0.958, on the validation tenth 0.947, 0.952, 0.945, seeds 0,
         1, 2, from all-MiniLM-L6-v2 (22.6 million parameters). With low-rank adapters and the head alone (1.3% of the
         parameters: --model.backbone.adapter_rank 8 --optimizer.trainable head lora --optimizer.learning_rate 0.002)
         0.960, on the validation tenth 0.943, seed 0 alone
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = LabelledTextConfig(
        train="$MEMGPT_DATA/classification/TREC.train.all",
        test="$MEMGPT_DATA/classification/TREC.test.all",
        form="label_first",
        encoding="latin-1",
        label_column="coarse",
    )
    changes = {
        "data": data,
        "training.steps": 300,
        "optimizer.learning_rate": 0.0002,
    }
    return with_fields(load_config("sst2"), changes)
