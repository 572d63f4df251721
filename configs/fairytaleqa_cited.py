"""Which sentence of a fairy tale a question reads: FairytaleQA, a window of 32 tokens and entries, without training.

`source_right` is the fraction of the questions whose first source lies in the right sections. Keys and values of
earlier tokens are entries of a `kv` memory, which share the softmax of self-attention with the window
(`fusion="attention"`).

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py fairytaleqa_cited --pretrained MODEL --evaluation.split test
         the first 8 texts: --evaluation.max_documents 8
Time:    about an hour of CPU time for 8 texts (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  the first 8 of the 23 test stories with 395 questions, from SmolLM2-135M-Instruct (4 bits a weight):
         source_right 0.122, source_chance 0.051: a model that was not trained to read finds the right sections little
         better than chance; ROUGE-L of its answers 0.109. The section nearest to the question by TF-IDF is right for
         0.579 of all questions, by a frozen MiniLM for 0.398 (by scripts that are not in this repository)
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    entries = load_config("lambada_entries").model
    changes = {
        "model": with_fields(entries, {"memory.memory_size": 4096}),
        "data.context": "document",
        "data.cite": True,
        "data.max_new_tokens": 8,
        "training.sequence_length": entries.segment_length,
        "evaluation.batch_size": 4,
    }
    return with_fields(load_config("fairytaleqa"), changes)
