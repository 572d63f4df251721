"""Link prediction: UMLS, 135 medical concepts and 46 relations, by a transformer over (entity, relation, ?).

Command: MEMGPT_DATA=FOLDER python experiments/train.py umls --workdir runs/umls
         python experiments/evaluate.py runs/umls/best --split test
Time:    not measured
Result:  not measured
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.triples import TriplesConfig
from memgpt_jax.models.heads import LinkHeadConfig

FOLDER = "$MEMGPT_DATA/kg/umls"


def config() -> ExperimentConfig:
    backbone = ModelConfig(
        vocab_size=227,  # 135 entities, 46 relations and their inverses
        d_model=64,
        num_layers=2,
        num_heads=4,
        window_size=2,
        segment_length=2,
        dropout=0.2,
        memory=NoMemoryConfig(),
    )
    return ExperimentConfig(
        model=HeadedConfig(backbone=backbone, head=LinkHeadConfig(scorer="complex", dropout=0.2, label_smoothing=0.1)),
        data=TriplesConfig(train=f"{FOLDER}/train.txt", valid=f"{FOLDER}/valid.txt", test=f"{FOLDER}/test.txt"),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50, weight_decay=0.1),
        training=TrainingConfig(steps=1000, batch_size=512, sequence_length=2, carry_state=False, checkpoint_every=100),
        evaluation=EvaluationConfig(
            batch_size=512, chunk_length=2, max_documents=None, max_tokens=None, every=100, metric="mrr", patience=4
        ),
    )
