"""The (slot, value) pairs of a dialogue as lines of text: SGD, a pretrained decoder with low-rank adapters.

Every fifth dialogue is a test dialogue, as in `sgd_slots`, whose `distinct_f1` is the F1 of the same pairs by tagging.

Command: MEMGPT_DATA=FOLDER python experiments/train.py sgd_triples --pretrained FOLDER_OR_NAME --workdir runs/triples
         python experiments/evaluate.py runs/triples --split test --change evaluation.max_documents=None
         window alone: --model.window_size 64
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig
from memgpt_jax.studies.command_line import load_config

LENGTH = 768  # two dialogues with their lines


def config() -> ExperimentConfig:
    data = TextPairsConfig(
        train="$MEMGPT_DATA/dialogue/sgd_multi/train.jsonl.gz",
        form="sgd_triples",
        test_every=5,
        prompt="{source}\n\nWhat the user said, slot | value:\n",
        metrics=("triples",),
        max_new_tokens=96,
    )
    changes = {
        "data": data,
        "model.window_size": LENGTH,
        "training": TrainingConfig(steps=100, batch_size=1, sequence_length=LENGTH, carry_state=False),
        "evaluation": EvaluationConfig(batch_size=16, chunk_length=64, max_documents=200, max_tokens=None),
    }
    return with_fields(load_config("scitldr"), changes)
