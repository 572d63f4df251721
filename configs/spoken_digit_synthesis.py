"""A spoken digit in the voice of one of four speakers: a decoder predicts log-mel frames one after the other.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py spoken_digit_synthesis --workdir runs/speak
         python experiments/evaluate.py runs/speak --split test
Time:    2.3 minutes of CPU time for training (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  l1 1.121 nats on 400 held-out sounds of the four speakers, seed 0 alone; all sounds end by themselves. The
         median of the training sounds of the digit and the speaker has 1.087, their mean 1.108, another take 1.508.
         `spoken_digits` of the same speakers recognises all 40 digits in the waveforms
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.features import FramesConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.speech_synthesis import SpeechSynthesisConfig
from memgpt_jax.models.heads import FramesHeadConfig

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def config() -> ExperimentConfig:
    decoder = ModelConfig(
        vocab_size=257 + 4,  # bytes and speakers
        d_model=96,
        num_layers=3,
        num_heads=4,
        segment_length=64,
        window_size=64,
        features=FramesConfig(num_mels=40),
        memory=NoMemoryConfig(),
    )
    return ExperimentConfig(
        model=HeadedConfig(backbone=decoder, head=FramesHeadConfig()),
        data=SpeechSynthesisConfig(
            path="$MEMGPT_DATA/audio/fsdd_4speakers.tar.gz",
            pattern=r"(?P<label>\d)_(?P<group>[a-z]+)_\d+\.wav$",
            words=tuple(f"{digit}={word}" for digit, word in enumerate(DIGITS)),
            test_last=10,
            sample_rate=8000,
            num_mels=40,
            source_length=128,
            align=True,
            noise=0.5,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=100, weight_decay=0.05),
        training=TrainingConfig(steps=1200, batch_size=8, sequence_length=128, carry_state=False, checkpoint_every=400),
        evaluation=EvaluationConfig(batch_size=40, chunk_length=128, max_tokens=None, every=400, metric="l1"),
    )
