"""Pure functions on arrays: everything the modules compute, usable without Flax."""

from memgpt_jax.ops.addressing import (
    address_entropy,
    allocation,
    content_weights,
    erase_and_add,
    follow_links,
    free,
    interpolate,
    link_writes,
    read_slots,
    sharpen,
    shift,
    use,
)
from memgpt_jax.ops.attention import attend, attention_weights, map_rows, masked_bias, window_attention
from memgpt_jax.ops.fusion import gated_fusion
from memgpt_jax.ops.linear import flat_dot_general
from memgpt_jax.ops.loss import Scores, cross_entropy
from memgpt_jax.ops.positions import document_positions, rotate, sinusoidal
from memgpt_jax.ops.read import Source, read, read_mass
from memgpt_jax.ops.write import Entries, append, causal_conv, pool_entries, select_highest_gate, take

__all__ = [
    "Entries",
    "Scores",
    "Source",
    "address_entropy",
    "allocation",
    "append",
    "attend",
    "attention_weights",
    "causal_conv",
    "content_weights",
    "cross_entropy",
    "document_positions",
    "erase_and_add",
    "flat_dot_general",
    "follow_links",
    "free",
    "gated_fusion",
    "interpolate",
    "link_writes",
    "map_rows",
    "masked_bias",
    "pool_entries",
    "read",
    "read_mass",
    "read_slots",
    "rotate",
    "select_highest_gate",
    "sharpen",
    "shift",
    "sinusoidal",
    "take",
    "use",
    "window_attention",
]
