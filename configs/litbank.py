"""Named entities in novels: LitBank, documents of about 2,000 words read in calls of 64 tokens with a memory.

The tags of a document are a linear chain (CRF).

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py litbank --workdir runs/litbank
         python experiments/evaluate.py runs/litbank --split test
Time:    28 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  F1 of entities in the 20 test documents 0.628 and 0.632, seeds 0 and 1 (95% interval of the first 0.592 to
         0.660; precision 0.610, recall 0.647), of the set of a document's entities 0.574 and 0.578; in the validation
         documents 0.677 and 0.682. After 300 steps 0.607. From all-MiniLM-L6-v2 with a memory. Without memory
         (--model.backbone.memory none, 20 minutes) 0.631 and 0.635 (0.592 to 0.669, 0.597 to 0.669; precision 0.610 and
         0.617, recall 0.653 and 0.654), set 0.579 and 0.589, validation 0.681 and 0.682: this memory adds nothing. In
         calls of 256 tokens without memory (--model.call_length 256 --model.backbone.segment_length 256
         --evaluation.chunk_length 256, too), seed 0: 0.639 (0.608 to 0.669), set 0.588, validation 0.694: four times
         the context is worth about a point. All learn the training documents by heart (loss of the last 100 steps 0.005
         to 0.008). Of some 600 mentions of a name that was found before, 0.914 and 0.902 get the same type, without
         memory 0.909 and 0.907, in calls of 256 tokens 0.903; later mentions of a name are found with a recall of 0.782
         and 0.792, without memory 0.785 and 0.771, in calls of 256 0.790, first ones of 0.586 and 0.589, without memory
         0.594 and 0.601, in calls of 256 0.611
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = TaggedTextConfig(
        train="$MEMGPT_DATA/ner/litbank_entities",
        form="conll",
        document="file",
        test_every=4,
        valid_every=3,
        case_as_token_type=True,
    )
    changes = {
        "data": data,
        "model.backbone.memory": KVMemoryConfig(memory_size=256),
        "model.backbone.fusion": "gated_add",
        "model.backbone.fusion_bias": 0.0,
        "model.call_length": 64,
        "model.head.crf": True,
        "training.batch_size": 8,
        "training.sequence_length": 256,
        "training.steps": 600,
    }
    return with_fields(load_config("wnut17"), changes)
