"""Speed of training and decoding, interleaved on one machine, and its share of the machine's peak rates."""

from memgpt_jax.studies.benchmark.compressed import compressed_rows
from memgpt_jax.studies.benchmark.decoding import decoding_case
from memgpt_jax.studies.benchmark.interleaving import Case, Medians, interleave
from memgpt_jax.studies.benchmark.long_stream import long_stream_measurements
from memgpt_jax.studies.benchmark.machine_peak import copy_probe, matmul_probe
from memgpt_jax.studies.benchmark.peers import decoding_peers, training_peers
from memgpt_jax.studies.benchmark.quantized import quantized_rows
from memgpt_jax.studies.benchmark.report import add_section, measured_row, table
from memgpt_jax.studies.benchmark.serving import serving_cases
from memgpt_jax.studies.benchmark.training import training_case

__all__ = [
    "Case",
    "Medians",
    "add_section",
    "compressed_rows",
    "copy_probe",
    "decoding_case",
    "decoding_peers",
    "interleave",
    "long_stream_measurements",
    "matmul_probe",
    "measured_row",
    "quantized_rows",
    "serving_cases",
    "table",
    "training_case",
    "training_peers",
]
