"""Which tokens an encoder attends to: the alignment of the tokens of one modality with those of another."""

from typing import Any

from memgpt_jax.config.checks import check
from memgpt_jax.models.attention import FullAttention
from memgpt_jax.models.encoder import Encoder
from memgpt_jax.shapes import Array, Flags, Float32, Tokens


def attention_weights(
    encoder: Encoder,
    tokens: Tokens,
    *,
    layer: int = -1,
    state: Any = None,
    reset: Flags | None = None,
    valid: Flags | None = None,
    **inputs: Any,
) -> Float32[Array, "B H L L"]:
    """The weights of self-attention in a layer: how much each token reads of each token, by head.

    The weights of text tokens for patches align the two: `weights[:, :, text][..., picture]`. Each row sums to 1; a
    token of another document, and padding, has weight 0.

    Args:
        encoder: the encoder; of a model with a head `model.backbone`.
        tokens: ids, like the other arguments as in `Encoder.hidden`.
        layer: index of the layer; -1: the last.
        state: as in `Encoder.hidden`.
        reset: as in `Encoder.hidden`.
        valid: as in `Encoder.hidden`.
        **inputs: further inputs, such as `features`.

    Raises:
        ValueError: the model is no encoder, it has no such layer, or as in `Encoder.hidden`.
    """
    check(isinstance(encoder, Encoder), f"attention_weights needs an Encoder, got {type(encoder).__name__}")
    number = len(encoder.blocks)
    check(-number <= layer < number, f"layer must be from {-number} to {number - 1}, got {layer}")
    index = layer % number
    x, state, called = encoder.started_call(tokens, state, reset, valid, **inputs)
    for block, before in zip(encoder.blocks[:index], state.layers[:index], strict=True):
        x, _, _ = block(x, before, called, "any", None)
    block = encoder.blocks[index]
    assert isinstance(block.attention, FullAttention)
    return block.attention.weights(block.attention_input(x), called)
