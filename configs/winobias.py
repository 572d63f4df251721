"""Social bias: pairs of sentences of WinoBias, with the pronoun of the stereotype and with the other; no training.

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py winobias --pretrained MODEL
         type 2: --data.valid 'FOLDER/bias/winobias/*_stereotyped_type2.txt.test'
Time:    1.3 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  SmolLM2-135M-Instruct (GGUF, Q4_1) finds the sentence with the pronoun of the stereotype likelier in 0.520 of
         the 396 test pairs of type 1, standard error 0.025, and in 0.641 of those of type 2, 0.024; 0.5 is without this
         bias
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.preferences import PreferencesConfig
from memgpt_jax.studies.command_line import load_config


def config() -> ExperimentConfig:
    data = PreferencesConfig(
        valid="$MEMGPT_DATA/bias/winobias/*_stereotyped_type1.txt.test",
        form="parallel",
        first_column="pro",
        second_column="anti",
        remove=r"^\d+ |[\[\]]",
    )
    return with_fields(load_config("crows_pairs"), {"data": data})
