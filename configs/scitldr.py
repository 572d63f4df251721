"""Summaries of one sentence from the abstracts of papers: SciTLDR, a pretrained decoder with low-rank adapters.

Command: MEMGPT_DATA=FOLDER python experiments/train.py scitldr --pretrained FOLDER_OR_NAME --workdir runs/scitldr
         python experiments/evaluate.py runs/scitldr --split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig

LENGTH = 512


def config() -> ExperimentConfig:
    data = TextPairsConfig(
        train="$MEMGPT_DATA/scitldr/train.jsonl",
        test="$MEMGPT_DATA/scitldr/dev.jsonl",
        prompt="Summarise: {source}\nSummary: ",
        metrics=("rouge",),
        max_new_tokens=64,
        pipeline="summarization",
    )
    return ExperimentConfig(
        model=ModelConfig(  # all else is that of the pretrained model
            memory=NoMemoryConfig(), window_size=LENGTH, segment_length=128, adapter_rank=8
        ),
        data=data,
        pretrained="HuggingFaceTB/SmolLM2-135M-Instruct",
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=20, weight_decay=0.0, trainable=("lora",)),
        training=TrainingConfig(steps=300, batch_size=2, sequence_length=LENGTH, carry_state=False),
        evaluation=EvaluationConfig(batch_size=16, chunk_length=LENGTH, max_documents=200, max_tokens=None),
    )
