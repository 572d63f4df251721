"""Social bias by a masked language model: CrowS-Pairs with the metric of its authors; no training.

Of each pair, the tokens that both sentences share are scored, each from all other tokens of its sentence (Nangia et
al., 2020). MODEL is an encoder that was saved with its head for masked tokens, such as a BertForMaskedLM.

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py crows_pairs_masked --pretrained MODEL
Time:    12 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared)
Result:  all-MiniLM-L6-v2, trained as a masked model on books (held-out accuracy 0.227), finds the first sentence
         likelier in 0.501 of the 1,508 pairs, standard error 0.013; 0.5 is without this bias. Its training:
         python experiments/train.py masked --pretrained MODEL --data.corpus folder --data.path BOOKS --data.tokenizer
         pretrained --training.steps 300 --training.batch_size 16 --training.sequence_length 128
         --optimizer.learning_rate 1e-4 --optimizer.warmup_steps 30 --model.segment_length 64
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
