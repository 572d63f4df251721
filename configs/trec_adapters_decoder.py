r"""Layers of a head over a small decoder with a memory, pretrained on Python's standard library: TREC, one table.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py stdlib --workdir runs/stdlib
         python experiments/ablate.py trec_adapters_decoder \
             --workdir runs/trec_adapters_decoder --evaluation.split test \
             --sweep model.head.layers=mlp,conv,gru,gated "optimizer.trainable=head,head lora,."
Time:    20 minutes of CPU time for the 12 runs (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  accuracy on the 500 test questions, with the head alone trained, with low-rank adapters and the head, and with
         all parameters: mlp 0.584, 0.724, 0.830; conv 0.618, 0.718, 0.820; gru 0.662, 0.770, 0.816; gated 0.580, 0.710,
         0.838; seed 0 alone, from 839 to 921 thousand parameters
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "model.backbone": ModelConfig(adapter_rank=8, dropout=0.1),  # all else is that of the pretrained model
        "pretrained": "runs/stdlib",
        "training.steps": 200,
        "optimizer.learning_rate": 0.002,
    }
    return with_fields(load_config("trec_adapters"), changes)
