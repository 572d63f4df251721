r"""Layers of a head over a pretrained encoder that is frozen, has low-rank adapters, or is trained: TREC, one table.

The layers are fully connected, convolutional, recurrent, and one of our own, `gated`, which this file defines.

Command: export MEMGPT_DATA=FOLDER
         python experiments/ablate.py trec_adapters --workdir runs/trec_adapters \
             --evaluation.split test \
             --sweep model.head.layers=mlp,conv,gru,gated "optimizer.trainable=head,head lora,."
Time:    30 minutes of CPU time for the 12 runs (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  accuracy on the 500 test questions after 60 steps, with the head alone trained, with low-rank adapters and the
         head, and with all parameters: mlp 0.812, 0.920, 0.966; conv 0.848, 0.926, 0.962; gru 0.852, 0.926, 0.946;
         gated 0.808, 0.924, 0.962; seed 0 alone, from all-MiniLM-L6-v2 (22.6 million parameters)
"""

import jax

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.memory.linear import linear
from memgpt_jax.models.heads import HEAD_LAYERS, HeadLayer, register_head_layer
from memgpt_jax.studies.command_line import load_config


class Gated(HeadLayer):
    """y_t = (W x_t) * sigmoid(V x_t)."""

    def __init__(self, config, d_in, width, *, causal, dtype, rngs):
        super().__init__(config, d_in, width, causal=causal, dtype=dtype, rngs=rngs)
        self.value, self.gate = (linear(d_in, width, use_bias=False, dtype=dtype, rngs=rngs) for _ in range(2))

    def __call__(self, x, state, reset, valid):
        return self.value(x) * jax.nn.sigmoid(self.gate(x)), state


if "gated" not in HEAD_LAYERS:  # a config may be loaded twice
    register_head_layer("gated", None, Gated)


def config() -> ExperimentConfig:
    changes = {
        "model.backbone.adapter_rank": 8,
        "model.head.layers": "mlp",
        "optimizer.learning_rate": 0.0005,
        "training.steps": 60,
    }
    return with_fields(load_config("trec"), changes)
