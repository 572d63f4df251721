"""Which digit is spoken, by a speaker who was not heard before: the free spoken digit dataset, from scratch.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py spoken_digits --data.test_groups theo --workdir runs/theo
         python experiments/evaluate.py runs/theo --split test
Time:    about 2 minutes of CPU time a speaker (Python 3.11, jax 0.10.2, one shared core of an AMD EPYC)
Result:  accuracy on the 500 digits of a speaker who is not in training, seed 0: theo 0.844, jackson 0.892, nicolas
         0.600, george 0.752, mean 0.772. The settings were chosen with george as the validation speaker; others
         gave him
             0.642  --data.scale False
             0.714  --data.warp 0.3 --data.gain 10
             0.702  --model.backbone.d_model 128 --model.backbone.num_layers 3 --model.backbone.dropout 0.3
                    --data.mask 0.4 --data.stretch 0.5 --data.warp 0.25
             0.666  --data.scale False --data.stretch 0.3 --data.mask 0.2 --model.backbone.d_model 64
                    --training.steps 600
             0.644  the same with --data.num_mels 40 --model.backbone.features.num_mels 40
         With the last, theo has 0.808, jackson 0.764 and nicolas 0.662
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.features import FramesConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.data.tasks.sounds import SoundsConfig
from memgpt_jax.models.heads import LabelHeadConfig


def config() -> ExperimentConfig:
    backbone = EncoderConfig(
        vocab_size=1,
        d_model=96,
        num_layers=2,
        num_heads=4,
        position="sinusoidal",
        features=FramesConfig(num_mels=20),
        dropout=0.2,
        memory=NoMemoryConfig(),  # a digit is whole in a call
        heads=(),
    )
    return ExperimentConfig(
        model=HeadedConfig(backbone=backbone, head=LabelHeadConfig(pool="mean", dropout=0.2)),
        data=SoundsConfig(
            path="$MEMGPT_DATA/audio/fsdd_4speakers.tar.gz",
            pattern=r"(?P<label>\d)_(?P<group>[a-z]+)_\d+\.wav$",
            test_groups=("theo",),
            sample_rate=8000,
            num_mels=20,
            center=True,
            scale=True,
            stretch=0.4,
            warp=0.2,
            mask=0.3,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, weight_decay=0.1),
        training=TrainingConfig(steps=1200, batch_size=8, sequence_length=128, carry_state=False, checkpoint_every=200),
        evaluation=EvaluationConfig(batch_size=64, chunk_length=64, max_tokens=None, every=200, metric="accuracy"),
    )
