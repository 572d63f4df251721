"""Needles in real text: facts hidden in source code, asked for when they are far outside the window.

Command: python experiments/train.py needle --seed 0 --workdir runs/needle-0        (and 1, 2), then
         python experiments/needle.py runs/needle-0 runs/needle-1 runs/needle-2
Time:    62 s of CPU time for training, 32 s for a stream of a million tokens in each of 4 rows (Python 3.11,
         jax 0.10.2, one core of an AMD EPYC)
Result:  recall after 1,024, 10,240, 100,352 and 1,000,448 tokens of held-out code (64 answers each; the 263 thousand
         tokens repeat), 64 entries a layer, rows of 512 tokens in training, seeds 0, 1, 2: 1.000 at every length.
         `--model.memory.gate scale`: 1.000, 1.000, 0.984, 0.922 (seed 0), 1.000 at every length (seed 1), 1.000,
         1.000, 1.000, 0.984 (seed 2). `--model.memory.evict oldest --model.memory.memory_size 512`, read with
         `--change model.memory.memory_size=1024`: 1.000, then at most 0.016. `--model.memory none`: 0.047, 0.031, 0.000
         (seeds 0, 1, 2) at every length; chance is 1/64 = 0.016.
"""

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.needle import NeedleConfig


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
            # An eighth of a row fits, so gates must single out what will be asked for. A dull reader (low temperature)
            # needs them: a sharp one finds its entry among open gates, and teaches them nothing.
            memory=KVMemoryConfig(memory_size=64, evict="lowest_gate", temperature=4.0),
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=300, batch_size=8, sequence_length=512, carry_state=False),
        evaluation=EvaluationConfig(batch_size=4, num_batches=16, chunk_length=1024),
    )
