"""Memory for a pretrained model: its attention limited to 256 tokens, a memory in a third of its layers, on books.

The weights stay as they are; memory and low-rank adapters are trained. Any model that `from_pretrained` reads will do.

Command: MEMGPT_DATA=FOLDER python experiments/adapt.py adapt --pretrained FOLDER_OR_NAME --workdir runs/adapt
Time:    6 s a step of a model of 135 million parameters (Python 3.11, jax 0.10.2, two cores of an AMD EPYC with nothing
         else to do), 10 minutes with everything
Result:  SmolLM2-135M-Instruct (4 bits a weight), eight held-out books of 2,048 tokens, seed 0, in bits per byte: full
         attention 1.136, the window 1.394, with the memory untrained 1.394, trained 1.254: 54% of that loss.
         The memory alone makes up for 38%, 1.296 (`--model.adapter_rank None --optimizer.trainable memory_layer`), and
         so few steps do not show that it adds to what adapters do alone, 1.255 (`--model.memory none
         --model.memory_layers None --optimizer.trainable lora`)
"""

import os

from memgpt_jax.config import EvaluationConfig, ExperimentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config_data import TextConfig
from memgpt_jax.config_memory import KVMemoryConfig


def config() -> ExperimentConfig:
    folder = os.path.join(os.environ.get("MEMGPT_DATA", "../shared/data"), "books_pg")
    return ExperimentConfig(
        model=ModelConfig(  # all else is that of the pretrained model
            window_size=256,
            segment_length=128,
            memory=KVMemoryConfig(
                memory_size=512,
                qk_norm=False,
                writer_conv=1,
                gate_bias=4.0,
                evict="least_read",
                null_entry=False,
            ),
            fusion="attention",
            fusion_bias=0.0,
        ),
        data=TextConfig(corpus="folder", path=folder, tokenizer="pretrained"),
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=10, weight_decay=0.0, trainable=("memory_layer",)),
        training=TrainingConfig(steps=60, batch_size=1, sequence_length=1024, log_every=10, checkpoint_every=20),
        evaluation=EvaluationConfig(max_documents=8, max_tokens=2048, batch_size=4, chunk_length=1024),
    )
