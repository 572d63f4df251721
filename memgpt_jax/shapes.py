"""Letters of array shapes. Those listed here mean the same in every file, unless a docstring says otherwise.

B  batch rows                      H  query heads
L  tokens of one call              G  key-value heads; each serves R = H / G query heads
T  tokens of a segment             K  width of a head
S  segments of a call              V  vocabulary
M  entries of a memory             D  model width (residual stream)
N  entries that one segment adds   E  entries that a call can read: the M old ones, initial ones, then the S N new ones

A stream is cut into segments of T tokens; boundaries count from the first token that a state ever saw.
"""

from jaxtyping import Array, Bool, Float, Float32, Int, Int8, Int32, Shaped

Tokens = Int[Array, "B L"]  # token ids
Stream = Float[Array, "B L D"]  # activations of a call
Flags = Bool[Array, "B L"]  # reset or valid, per token
Rows = Int32[Array, "B"]  # one counter per row
Targets = dict[str, Int[Array, "B ..."]]  # by head: [B, L], or [B] where it labels rows

__all__ = [
    "Array",
    "Bool",
    "Flags",
    "Float",
    "Float32",
    "Int",
    "Int8",
    "Int32",
    "Rows",
    "Shaped",
    "Stream",
    "Targets",
    "Tokens",
]
