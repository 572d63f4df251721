"""Social bias by a masked language model: CrowS-Pairs with the metric of its authors; no training.

Of each pair, the tokens that both sentences share are scored, each from all other tokens of its sentence (Nangia et
al., 2020). MODEL is an encoder that was saved with its head for masked tokens, such as a BertForMaskedLM.

Command: MEMGPT_DATA=FOLDER python experiments/zero_shot.py crows_pairs_masked --pretrained MODEL
Time:    not measured: not run yet
Result:  not measured: not run yet
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    changes = {
        "model": EncoderConfig(memory=NoMemoryConfig(), segment_length=8),
        "data.shared_only": True,
        "training.sequence_length": 512,  # the positions of a BERT; nothing is trained
        "pretrained": "google-bert/bert-base-uncased",
    }
    return with_fields(load_config("crows_pairs"), changes)
