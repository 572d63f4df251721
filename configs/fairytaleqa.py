"""Questions about fairy tales, answered in words: FairytaleQA, a pretrained decoder with a memory and adapters.

The 232 stories of the training split train (every tenth is the validation split), the 23 stories of the published
validation split with 1,025 questions are the test split, as in the baselines. `--data.context given` reads only the
sections that hold the answer.

Command: MEMGPT_DATA=FOLDER python experiments/train.py fairytaleqa --pretrained MODEL --workdir runs/fairytaleqa
         python experiments/evaluate.py runs/fairytaleqa --split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig

LENGTH = 512


def config() -> ExperimentConfig:
    data = DocumentQuestionsConfig(
        train="$MEMGPT_DATA/fairytaleqa/questions/train",
        test="$MEMGPT_DATA/fairytaleqa/questions/val",
        form="fairytaleqa",
        max_new_tokens=32,
        read_again=2,
    )
    return ExperimentConfig(
        model=ModelConfig(  # all else is that of the pretrained model
            memory=KVMemoryConfig(memory_size=256),
            fusion="gated_add",
            fusion_bias=0.0,
            window_size=LENGTH,
            segment_length=128,
            adapter_rank=8,
        ),
        data=data,
        pretrained="HuggingFaceTB/SmolLM2-135M-Instruct",
        optimizer=OptimizerConfig(
            learning_rate=5e-4, warmup_steps=20, weight_decay=0.0, trainable=("lora", "memory_layer")
        ),
        training=TrainingConfig(steps=300, batch_size=2, sequence_length=LENGTH),
        evaluation=EvaluationConfig(batch_size=16, chunk_length=LENGTH, max_documents=None, max_tokens=None),
    )
