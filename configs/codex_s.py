"""Link prediction: CoDEx-S, 2,034 entities and 42 relations of Wikidata, by a transformer over (entity, relation, ?).

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py codex_s --workdir runs/codex_s
         python experiments/evaluate.py runs/codex_s --split test
         the shallow model ComplEx: --model.backbone.num_layers 0
Time:    5 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  MRR of the 1,828 test triples 0.402, 0.411, 0.416 (95% interval of the first 0.388 to 0.415), Hits@1 0.291,
         0.298, 0.314, Hits@10 0.624, 0.625, 0.627, on the validation triples 0.419, 0.423, 0.427, seeds 0, 1, 2. Seed 0
         of ComplEx 0.434 (Hits@10 0.625), validation 0.436, as much as the baseline: 0.434 (Hits@10 0.648); of two
         blocks (--model.backbone.num_layers 2) 0.390, validation 0.395; of two of width 256, with a dropout of 0.3,
         0.380 and 0.386; of two with a weight decay of 0.1 0.386 and 0.388, and for 6,000 steps with a dropout of 0.3
         0.388 and 0.391
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.triples import TriplesConfig
from memgpt_jax.studies.command_line import load_config

FOLDER = "$MEMGPT_DATA/kg/codex-s"


def config() -> ExperimentConfig:
    data = TriplesConfig(train=f"{FOLDER}/train.txt", valid=f"{FOLDER}/valid.txt", test=f"{FOLDER}/test.txt")
    changes = {
        "data": data,
        "model.backbone.vocab_size": 2118,  # 2,034 entities, 42 relations and their inverses
        "model.backbone.d_model": 128,
        "model.backbone.num_layers": 1,
        "model.backbone.dropout": 0.2,
        "model.head.dropout": 0.2,
        "optimizer.weight_decay": 0.5,
        "training.steps": 3000,
        "training.checkpoint_every": 300,
        "evaluation.every": 300,
    }
    return with_fields(load_config("umls"), changes)
