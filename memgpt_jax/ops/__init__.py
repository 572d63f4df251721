"""Pure functions on arrays: everything that the modules compute, usable without Flax.

`ops.attention` is attention within a call, `ops.memory` reads, writes and searches a memory, `ops.positions` encodes
positions, and `ops.mesh` splits arrays over devices.
"""

from memgpt_jax.ops import attention, memory, mesh
from memgpt_jax.ops.attention import positions
from memgpt_jax.ops.fusion import gated_fusion, gated_modalities, joint_softmax
from memgpt_jax.ops.graph import messages
from memgpt_jax.ops.linear import flat_dot_general, matmul
from memgpt_jax.ops.loss import Scores, cross_entropy, logit_scores
from memgpt_jax.ops.quantized import Int4Matrix, Int8Groups, Int8Matrix, quantize_matrix, stored_matmul

__all__ = [
    "Int4Matrix",
    "Int8Groups",
    "Int8Matrix",
    "Scores",
    "attention",
    "cross_entropy",
    "flat_dot_general",
    "gated_fusion",
    "gated_modalities",
    "joint_softmax",
    "logit_scores",
    "matmul",
    "memory",
    "mesh",
    "messages",
    "positions",
    "quantize_matrix",
    "stored_matmul",
]
