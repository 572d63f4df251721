"""Python's standard library, as found on this machine: long files, full of names that are defined far away.

Command: python experiments/train.py stdlib --workdir runs/stdlib
Time:    not measured yet
Result:  not measured yet; the baseline of as many parameters is `stdlib_none`
"""

from memgpt_jax.config import (
    EvaluationConfig,
    ExperimentConfig,
    KVMemoryConfig,
    ModelConfig,
    OptimizerConfig,
    TextConfig,
    TrainingConfig,
)


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
