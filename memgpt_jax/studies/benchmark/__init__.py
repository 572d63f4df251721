"""How fast models train and decode, side by side on one machine, and how near that is to what the machine can do."""

from memgpt_jax.studies.benchmark.decoding import decoding_candidate
from memgpt_jax.studies.benchmark.peers import decoding_peers, training_peers
from memgpt_jax.studies.benchmark.probes import copy_probe, matmul_probe
from memgpt_jax.studies.benchmark.report import add_section, measured_row, table
from memgpt_jax.studies.benchmark.streams import stream_measurements
from memgpt_jax.studies.benchmark.training import training_candidate
from memgpt_jax.studies.benchmark.turns import Candidate, Medians, take_turns

__all__ = [
    "Candidate",
    "Medians",
    "add_section",
    "copy_probe",
    "decoding_candidate",
    "decoding_peers",
    "matmul_probe",
    "measured_row",
    "stream_measurements",
    "table",
    "take_turns",
    "training_candidate",
    "training_peers",
]
