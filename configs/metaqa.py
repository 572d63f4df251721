"""Questions over a knowledge graph, one triple from topic to answer: MetaQA, from scratch.

Every fifth question is a test question. Of the published questions, those for development are here.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py metaqa --workdir runs/metaqa
         python experiments/evaluate.py runs/metaqa --split test --max-documents None
Time:    about 60 s of CPU time, and 31 s for the test questions (Python 3.11, jax 0.10.2, one core, shared)
Result:  1,998 test questions: Hits@1 0.948, 0.949, 0.949 (seeds 0, 1, 2), of 0.978 whose memory holds an answer; cited
         0.996 each, edited 0.966, 0.964, 0.966, kept 1.000 each. The best relation for each question, chosen by its
         answers, has Hits@1 0.950, because films of the same name are one entity. Baseline, paths by logistic
         regression: 0.946
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.graph_questions import GraphQuestionsConfig
from memgpt_jax.models.heads import WalkHeadConfig

FOLDER = "$MEMGPT_DATA/kgqa/metaqa"


def config() -> ExperimentConfig:
    backbone = ModelConfig(
        vocab_size=512,
        d_model=64,
        num_layers=1,
        num_heads=4,
        window_size=16,
        segment_length=16,
        dropout=0.1,
        memory=NoMemoryConfig(),
    )
    data = GraphQuestionsConfig(
        triples=f"{FOLDER}/kb.txt.gz",
        train=f"{FOLDER}/1hop_dev.txt",
        form="metaqa",
        test_every=5,
        tokenizer="bpe",
        tokenizer_vocab_size=512,
        edits=500,
        training_graph_size=32,
    )
    return ExperimentConfig(
        model=HeadedConfig(backbone=backbone, head=WalkHeadConfig(pool="mean", dropout=0.1)),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        training=TrainingConfig(steps=600, batch_size=64, sequence_length=16, carry_state=False),
        evaluation=EvaluationConfig(batch_size=32, max_tokens=None),
    )
