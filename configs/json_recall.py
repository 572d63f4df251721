"""Key-value retrieval in JSON: which value has a key of an object of random hexadecimal strings?

Command: python experiments/train.py json_recall --workdir runs/json_recall
         any number of pairs: python experiments/evaluate.py runs/json_recall
         --change data.num_pairs=64 model.memory.memory_size=2048
         a published file: --change data.num_pairs=75 data.key_length=36 data.value_length=36 data.num_questions=1
         data.path=FOLDER/recall/kv-retrieval-75_keys.jsonl.gz model.memory.memory_size=8192    (not run)
Time:    61 s of CPU time, 22 s for 64 pairs (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  8 pairs of 4 characters each, 4 questions a row: 0.993 of 1,024 whole values right, seed 0 alone; with 64
         pairs and 2,048 entries a layer 0.958; a guess is right once in 65,536
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.json_recall import JsonRecallConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = JsonRecallConfig(num_pairs=8, num_questions=4)
    changes = {"model.memory.memory_size": 256, "evaluation.batch_size": 16, "training.steps": 150}
    sizes = {"model.vocab_size": data.num_ids, "training.sequence_length": data.row_length}
    return with_fields(load_config("recall"), {"data": data} | sizes | changes)
