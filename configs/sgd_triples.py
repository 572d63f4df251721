"""The (slot, value) pairs of a dialogue as lines of text: SGD, a pretrained decoder with low-rank adapters.

Every fifth dialogue is a test dialogue, as in `sgd_slots`, whose `distinct_f1` is the F1 of the same pairs by tagging.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py sgd_triples --pretrained FOLDER_OR_NAME --workdir runs/triples
         python experiments/evaluate.py runs/triples --split test --change evaluation.max_documents=100
         all 307 test dialogues: --change evaluation.max_documents=None
         window alone, not run yet: --model.window_size 64
Time:    31 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  F1 of the pairs of the first 100 test dialogues 0.387 (95% interval 0.343 to 0.428; precision 0.393, recall
         0.381; 2 malformed lines), of the 122 validation dialogues 0.317; seed 0 alone, from SmolLM2-135M-Instruct (4
         bits a weight), which has read about 200 dialogues. By tags, `sgd_slots` has 0.877
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
