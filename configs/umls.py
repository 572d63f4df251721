"""Link prediction: UMLS, 135 medical concepts and 46 relations, by a transformer over (entity, relation, ?).

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py umls --workdir runs/umls
         python experiments/evaluate.py runs/umls --split test
         shallow models: --model.backbone.num_layers 0 --model.head.scorer transe (or distmult, complex, rotate)
Time:    68 s of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  the 661 test triples in both directions: filtered MRR 0.916, 0.920 and 0.922 (seeds 0, 1, 2; 95% interval of
         seed 0 0.904 to 0.928), Hits@1 0.849 to 0.858, Hits@10 0.996 to 0.998; the parameters with the best validation
         MRR, 0.916, 0.924 and 0.916. Dropout was chosen on the validation triples with seed 0
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
        dropout=0.1,
        memory=NoMemoryConfig(),
    )
    return ExperimentConfig(
        model=HeadedConfig(backbone=backbone, head=LinkHeadConfig(scorer="complex", dropout=0.1, label_smoothing=0.1)),
        data=TriplesConfig(train=f"{FOLDER}/train.txt", valid=f"{FOLDER}/valid.txt", test=f"{FOLDER}/test.txt"),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50, weight_decay=0.1),
        training=TrainingConfig(steps=1000, batch_size=512, sequence_length=2, carry_state=False, checkpoint_every=100),
        evaluation=EvaluationConfig(
            batch_size=512, chunk_length=2, max_tokens=None, every=100, metric="mrr", patience=4
        ),
    )
