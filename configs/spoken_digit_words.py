"""Strings of one to eight spoken digits as words, by a speaker who was not heard before: an encoder-decoder.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py spoken_digit_words --data.test_groups theo --workdir runs/words
         python experiments/evaluate.py runs/words --split test
Time:    about 25 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  word error rate 0.518 and exact match 0.150 on 500 strings of theo, who is not in training, seed 0 alone. On
         the validation strings of the other speakers, the word error rate is 0.925, 0.804, 0.549 and 0.394 after 500,
         1,000, 1,500 and 2,000 steps: 2,000 steps are too few. CTC (`spoken_digit_stream`) learns such strings in 16
         minutes: 0.138 and 0.004
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.features import FramesConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig
from memgpt_jax.data.tasks.transcripts import TranscriptsConfig

SOURCE, LENGTH, CLIPS = 256, 48, 8
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def config() -> ExperimentConfig:
    both = {
        "vocab_size": 257,
        "d_model": 96,
        "num_heads": 4,
        "segment_length": LENGTH,
        "memory": NoMemoryConfig(),
        "dropout": 0.1,
    }
    return ExperimentConfig(
        model=Seq2SeqConfig(
            encoder=EncoderConfig(
                **both, num_layers=3, position="sinusoidal", features=FramesConfig(num_mels=40), heads=()
            ),
            decoder=ModelConfig(**both, num_layers=2, window_size=LENGTH, source_length=SOURCE),
        ),
        data=TranscriptsConfig(
            path="$MEMGPT_DATA/audio/fsdd_4speakers.tar.gz",
            pattern=r"(?P<label>\d)_(?P<group>[a-z]+)_\d+\.wav$",
            words=tuple(f"{digit}={word}" for digit, word in enumerate(DIGITS)),
            test_groups=("theo",),
            sample_rate=8000,
            num_mels=40,
            source_length=SOURCE,
            max_clips=CLIPS,
            center=True,
            stretch=0.3,
            warp=0.2,
            mask=0.1,
            metrics=("wer", "exact"),
            max_new_tokens=LENGTH,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=100, weight_decay=0.05),
        training=TrainingConfig(
            steps=2000, batch_size=16, sequence_length=LENGTH, carry_state=False, checkpoint_every=500
        ),
        evaluation=EvaluationConfig(batch_size=32, chunk_length=LENGTH, max_tokens=None, every=500, metric="wer"),
    )
