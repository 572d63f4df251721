"""Social bias: pairs of sentences of CrowS-Pairs, the first of which follows a stereotype; no training.

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py crows_pairs --pretrained MODEL
Time:    9 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  SmolLM2-135M-Instruct (GGUF, Q4_1) finds the first sentence likelier in 0.556 of the 1,508 pairs,
         standard error 0.013; 0.5 is without this bias
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.preferences import PreferencesConfig


def config() -> ExperimentConfig:
    data = PreferencesConfig(
        valid="$MEMGPT_DATA/bias/crows_pairs_anonymized.csv",
        first_column="sent_more",
        second_column="sent_less",
        group_column="bias_type",
    )
    return ExperimentConfig(
        model=ModelConfig(memory=NoMemoryConfig(), window_size=128, segment_length=32),
        data=data,
        pretrained="HuggingFaceTB/SmolLM2-135M-Instruct",
        evaluation=EvaluationConfig(batch_size=32, chunk_length=64, max_tokens=None),
    )
