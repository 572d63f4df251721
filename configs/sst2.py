"""Sentiment of sentences: SST-2, from a pretrained encoder.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py sst2 --workdir runs/sst2
         python experiments/evaluate.py runs/sst2 --split test
Time:    10 minutes of CPU time (Python 3.11, jax 0.10.2, two cores of an AMD EPYC, shared)
Result:  accuracy on the 872 test sentences 0.874, 0.866, 0.876, on the validation tenth 0.861, 0.855, 0.854, seeds 0,
         1, 2, from all-MiniLM-L6-v2 (22.6 million parameters).
         With low-rank adapters (--model.backbone.adapter_rank 8 --optimizer.trainable head lora
         --optimizer.learning_rate 0.002), 1.3% of the parameters trained, seed 0 alone: 0.858 and 0.856, 13 minutes of
         CPU time (one core of an Intel Xeon, shared)
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.models.heads import LabelHeadConfig


def config() -> ExperimentConfig:
    data = LabelledTextConfig(
        train="$MEMGPT_DATA/classification/stsa.binary.train",
        test="$MEMGPT_DATA/classification/stsa.binary.dev",
        form="label_first",
        encoding="latin-1",
    )
    return ExperimentConfig(
        model=HeadedConfig(
            backbone=EncoderConfig(memory=NoMemoryConfig(), heads=(), segment_length=64, dropout=0.1),
            head=LabelHeadConfig(pool="mean", dropout=0.1),
        ),
        data=data,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=20, weight_decay=0.01),
        training=TrainingConfig(steps=240, batch_size=16, sequence_length=128, carry_state=False),
        evaluation=EvaluationConfig(batch_size=32, chunk_length=64, max_tokens=None),
    )
