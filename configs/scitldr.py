"""Summaries of one sentence from the abstracts of papers: SciTLDR, a pretrained decoder with low-rank adapters.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py scitldr --pretrained FOLDER_OR_NAME --workdir runs/scitldr
         python experiments/evaluate.py runs/scitldr --split test
Time:    53 minutes of CPU time, 9 of them for the test papers (Python 3.11, jax 0.10.2, one core of an Intel Xeon,
         shared)
Result:  ROUGE-1, -2, -L of the first 200 of the 619 test papers 0.391, 0.177, 0.328, of 199 validation papers 0.352,
         0.160, 0.296; seed 0 alone, from SmolLM2-135M-Instruct (4 bits a weight). Baselines on all 619: TextRank 0.342,
         0.130, 0.262
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig

LENGTH = 320  # an abstract and its summary


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
            memory=NoMemoryConfig(), window_size=LENGTH, segment_length=64, adapter_rank=8
        ),
        data=data,
        pretrained="HuggingFaceTB/SmolLM2-135M-Instruct",
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=20, weight_decay=0.0, trainable=("lora",)),
        training=TrainingConfig(steps=250, batch_size=2, sequence_length=LENGTH, carry_state=False),
        evaluation=EvaluationConfig(batch_size=16, chunk_length=64, max_documents=200, max_tokens=None),
    )
