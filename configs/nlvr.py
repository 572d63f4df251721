r"""Is a sentence true of a scene of three boxes: NLVR, the nodes of a graph, from a model of generated statements.

A fifth of the sentences, with all scenes of equal words, is the test split; `--data.fold` 0 to 4 gives the
cross-validation.
Half of each training batch are generated statements. The rules of these statements were written after reading the
sentences of all folds.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py nlvr_statements --workdir runs/nlvr_statements
         python experiments/train.py nlvr --pretrained runs/nlvr_statements --workdir runs/nlvr
         all folds: python experiments/ablate.py nlvr --pretrained runs/nlvr_statements \
             --evaluation.split test --sweep data.fold=0,1,2,3,4 --workdir runs/nlvr_folds
Time:    about 47 s of CPU time a fold, after 20 minutes (Python 3.11, jax 0.10.2, one busy core of an AMD EPYC)
Result:  accuracy 0.863 on the 989 sentences (folds 0.871, 0.861, 0.866, 0.878, 0.838), seed 0 alone, from the model
         whose accuracy on generated statements is 0.962; from the model of 2,400 steps, with 0.725, 0.609. Of the
         sentences, 463 are also among 60,000 generated statements. Baselines: always true 0.553; boosted trees on
         counts of objects and words 0.563
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "data.path": "$MEMGPT_DATA/image/nlvr_dev.jsonl.gz",
        "optimizer.learning_rate": 5e-4,
        "training.steps": 200,
    }
    return with_fields(load_config("nlvr_statements"), changes)
