"""Reading, writing, addressing and searching a memory."""

from memgpt_jax.ops.memory.addressing import (
    address_entropy,
    allocation_weights,
    content_weights,
    erase_and_add,
    follow_links,
    free_usage,
    interpolate_weights,
    link_writes,
    read_slots,
    sharpen_weights,
    shift_weights,
    update_usage,
)
from memgpt_jax.ops.memory.compression import compress, select_most_used
from memgpt_jax.ops.memory.fast_weights import Writes, scan_fast_weight_heads, scan_fast_weights, unit_features
from memgpt_jax.ops.memory.hops import Hops, multi_hop_read, multi_hop_weights, position_encoding
from memgpt_jax.ops.memory.inner_learning import Pairs, inner_network, inner_update
from memgpt_jax.ops.memory.nearest import find_nearest, find_nearest_in_groups, read_chosen
from memgpt_jax.ops.memory.reader import (
    ReadableEntries,
    Source,
    read_entries,
    read_entries_with_lse,
    read_mass,
    read_weights,
)
from memgpt_jax.ops.memory.segments import (
    SeenEntries,
    causal_visibility,
    make_source,
    read_segments,
    read_segments_with_lse,
)
from memgpt_jax.ops.memory.writer import (
    Entries,
    append_entries,
    causal_conv,
    gather_entries,
    places_to_keep,
    pool_entries,
    select_highest_gate,
)

__all__ = [
    "Entries",
    "Hops",
    "Pairs",
    "ReadableEntries",
    "SeenEntries",
    "Source",
    "Writes",
    "address_entropy",
    "allocation_weights",
    "append_entries",
    "causal_conv",
    "causal_visibility",
    "compress",
    "content_weights",
    "erase_and_add",
    "find_nearest",
    "find_nearest_in_groups",
    "follow_links",
    "free_usage",
    "gather_entries",
    "inner_network",
    "inner_update",
    "interpolate_weights",
    "link_writes",
    "make_source",
    "multi_hop_read",
    "multi_hop_weights",
    "places_to_keep",
    "pool_entries",
    "position_encoding",
    "read_chosen",
    "read_entries",
    "read_entries_with_lse",
    "read_mass",
    "read_segments",
    "read_segments_with_lse",
    "read_slots",
    "read_weights",
    "scan_fast_weight_heads",
    "scan_fast_weights",
    "select_highest_gate",
    "select_most_used",
    "sharpen_weights",
    "shift_weights",
    "unit_features",
    "update_usage",
]
