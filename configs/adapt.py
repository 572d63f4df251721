"""Memory for a pretrained model: its attention limited to 256 tokens, 512 entries in each layer, on books.

The weights stay as they are; the memory alone is trained. Any causal model that `from_pretrained` reads will do.

Command: export MEMGPT_DATA=FOLDER
         python experiments/adapt.py adapt --pretrained FOLDER_OR_NAME --workdir runs/adapt
Time:    8 s a step of a model of 135 million parameters, after 1.5 minutes of compilation (Python 3.11, jax 0.10.2, two
         cores of an AMD EPYC with nothing else to do)
Result:  SmolLM2-135M-Instruct (4 bits a weight), eight held-out books of 2,048 tokens, in bits per byte: full attention
         1.136, the window 1.394, with the memory untrained 1.150, trained 1.140, 1.142 and 1.136 (seeds 0, 1, 2): 98 to
         100% of what the window loses. Untrained, 16 entries make up for 83%, 64 for 86%, 128 for 88%, 256 for 91%,
         2,048 for 96% (`--train False --model.memory.memory_size N`; the first three in segments of 8, 32, 64).
         All of these, the three seeds too, were measured when an entry held a key and a value for each of the 9 heads;
         now it holds one of each for each of the model's 3 key-value heads, which has not been measured.
         Adapters of rank 8 alone: 54%, seed 0 (`--model.memory none --model.adapter_rank 8 --optimizer.trainable lora
         --optimizer.learning_rate 1e-3`)
"""

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig


def config() -> ExperimentConfig:
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
        data=TextConfig(corpus="folder", path="$MEMGPT_DATA/books_pg", tokenizer="pretrained"),
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=10, weight_decay=0.0, trainable=("memory_layer",)),
        training=TrainingConfig(steps=60, batch_size=1, sequence_length=1024, log_every=10, checkpoint_every=20),
        evaluation=EvaluationConfig(max_documents=8, max_tokens=2048, batch_size=4, chunk_length=1024),
    )
