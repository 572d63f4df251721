"""Link prediction: CoDEx-S, 2,034 entities and 42 relations of Wikidata, by a transformer over (entity, relation, ?).

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py codex_s --workdir runs/codex_s
         python experiments/evaluate.py runs/codex_s --split test
         a shallow model, not run yet: --model.backbone.num_layers 0 --model.head.scorer complex
Time:    5.4 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  MRR of the 1,828 test triples 0.386 (95% interval 0.372 to 0.399), Hits@1 0.273, Hits@10 0.610, on the
         validation triples 0.388; seed 0 alone. Baseline: ComplEx 0.434, Hits@10 0.648. With 6,000 steps and more
         dropout (--training.steps 6000 --model.backbone.dropout 0.3 --model.head.dropout 0.3, 11 minutes): 0.388 and
         0.391; with --optimizer.weight_decay 0.5 0.390 and 0.395
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
        "model.backbone.dropout": 0.2,
        "model.head.dropout": 0.2,
        "training.steps": 3000,
        "training.checkpoint_every": 300,
        "evaluation.every": 300,
    }
    return with_fields(load_config("umls"), changes)
