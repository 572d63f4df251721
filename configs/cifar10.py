"""What a picture shows: 4,000 pictures of CIFAR-10, ten classes, from scratch.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py cifar10 --workdir runs/cifar10
         python experiments/evaluate.py runs/cifar10 --split test
Time:    16 minutes of CPU time (Python 3.11, jax 0.10.2, one shared core of an AMD EPYC), with the validations
Result:  accuracy on 1,000 test pictures 0.637, on the 300 validation pictures 0.673, seed 0 alone. With
         --training.steps 1200 --training.checkpoint_every 200 --evaluation.every 200 --data.shift 3 --data.erase 0
         --data.light 0 --model.head.label_smoothing 0: 0.574 and 0.623, 5 minutes. Baseline, logistic regression on
         200 random whitened patches: 0.573
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.features import PatchesConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.data.tasks.pictures import PicturesConfig
from memgpt_jax.models.heads import LabelHeadConfig


def config() -> ExperimentConfig:
    backbone = EncoderConfig(
        vocab_size=1,
        d_model=128,
        num_layers=2,
        num_heads=4,
        position="learned",
        num_positions=16,
        features=PatchesConfig(height=32, width=32, patch_size=8, stem=(32, 64, 96, 128)),
        dropout=0.1,
        memory=NoMemoryConfig(),  # a picture is whole in a call
        heads=(),
    )
    return ExperimentConfig(
        model=HeadedConfig(backbone=backbone, head=LabelHeadConfig(pool="mean", dropout=0.1, label_smoothing=0.1)),
        data=PicturesConfig(
            path="$MEMGPT_DATA/image/cifar10_train4000.tar.gz",
            patch_size=8,
            test_last=100,
            flip=True,
            shift=4,
            erase=10,
            light=0.3,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=100, weight_decay=0.1),
        training=TrainingConfig(steps=3600, batch_size=64, carry_state=False, checkpoint_every=400),
        evaluation=EvaluationConfig(batch_size=64, chunk_length=16, max_tokens=None, every=400, metric="accuracy"),
    )
