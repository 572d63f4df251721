"""What the system confirms in a dialogue: values that were said before, a pretrained decoder without training. SGD.

The window of 1,024 tokens is full attention. The groups of the result are the number of words since the value was said.

Command: MEMGPT_DATA=FOLDER python experiments/zero_shot.py sgd_confirmed --pretrained MODEL
         the window alone: --model.window_size 64 --model.segment_length 64
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig


def config() -> ExperimentConfig:
    data = TextPairsConfig(
        valid="$MEMGPT_DATA/dialogue/sgd_multi/dev.jsonl.gz",
        form="sgd_confirmed",
        prompt="{source} ",
        group_column="distance",
        metrics=("begins",),
        max_new_tokens=12,
    )
    return ExperimentConfig(
        model=ModelConfig(memory=NoMemoryConfig(), window_size=1024, segment_length=64),
        data=data,
        pretrained="HuggingFaceTB/SmolLM2-135M-Instruct",
        evaluation=EvaluationConfig(batch_size=16, chunk_length=64, max_documents=None, max_tokens=None),
    )
