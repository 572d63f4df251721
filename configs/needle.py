"""Needles in real text: facts hidden in source code, asked for when they are far outside the window.

Command: python experiments/train.py needle --workdir runs/needle
Time:    not measured yet
Result:  not measured yet
"""

from memgpt_jax.config import (
    EvaluationConfig,
    ExperimentConfig,
    KVMemoryConfig,
    ModelConfig,
    NeedleConfig,
    OptimizerConfig,
    TextConfig,
    TrainingConfig,
)


def config() -> ExperimentConfig:
    data = NeedleConfig(
        text=TextConfig(corpus="stdlib", tokenizer="bpe", tokenizer_vocab_size=1024), gap_length=64, num_words=64
    )
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.text.tokenizer_vocab_size + data.num_words,
            d_model=64,
            num_layers=2,
            num_heads=4,
            window_size=16,
            segment_length=64,
            # An eighth of a row fits, so gates must open for what is asked. A dull reader (low temperature) needs open
            # gates: a sharp one finds its entry behind a closed gate as well.
            memory=KVMemoryConfig(memory_size=64, evict="lowest_gate", temperature=4.0),
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=300, batch_size=8, sequence_length=512, carry_state=False),
        evaluation=EvaluationConfig(batch_size=4, num_batches=16, chunk_length=1024),
    )
