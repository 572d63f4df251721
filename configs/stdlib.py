"""Python's standard library, as found on this machine: long files, full of names that are defined far away.

Command: python experiments/train.py stdlib --workdir runs/stdlib --seed 0        (and 1, 2)
Time:    143 s of CPU time with everything (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  bits per byte on 32 held-out files, seeds 0, 1, 2: 1.903, 1.880, 1.894. The baseline of as many parameters,
         `stdlib_none`: 2.311, 2.266, 2.305. By position in the file, the memory gains (mean of the seeds):
         -0.05 below 64 tokens, 0.11 to 128, 0.31 to 256, 0.32 to 512, 0.40 to 1,024, 0.42 to 2,048, 0.39 to 4,096,
         0.45 to 8,192.
"""

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig


def config() -> ExperimentConfig:
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=2048,
            d_model=128,
            num_layers=2,
            num_heads=4,
            window_size=64,
            segment_length=64,
            memory=KVMemoryConfig(memory_size=1024),
        ),
        data=TextConfig(corpus="stdlib", tokenizer="bpe", tokenizer_vocab_size=2048),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=30),
        training=TrainingConfig(steps=150, batch_size=4, sequence_length=2048),
        evaluation=EvaluationConfig(max_documents=32, max_tokens=8192, batch_size=4, chunk_length=2048),
    )
