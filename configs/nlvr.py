r"""Is a sentence true of a scene of three boxes: NLVR, the nodes of a graph, from a model of generated statements.

A fifth of the sentences, with all their scenes, is the test split; `--data.fold` 0 to 4 gives the cross-validation.
Half of each training batch are generated statements. The rules of these statements were written after reading the
sentences of all folds.

Command: python experiments/train.py nlvr_statements --workdir runs/nlvr_statements
         MEMGPT_DATA=FOLDER python experiments/train.py nlvr --pretrained runs/nlvr_statements --data.fold 0 \
             --workdir runs/nlvr_0
         python experiments/evaluate.py runs/nlvr_0 --split test
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "data.path": "$MEMGPT_DATA/image/nlvr_dev.jsonl.gz",
        "optimizer.learning_rate": 5e-4,
        "training.steps": 300,
    }
    return with_fields(load_config("nlvr_statements"), changes)
