"""A memory for a model that was trained without one."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.memory import KVMemoryConfig, MemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import Fusion, ModelConfig
from memgpt_jax.files.saved_files import replacing_files
from memgpt_jax.interop.folder import writable
from memgpt_jax.interop.origin import Origin, write_origin
from memgpt_jax.interop.pretrained import RUN_ORIGIN, describe, with_origin
from memgpt_jax.models.layers import SelfAttention

OWN = (
    "memory",
    "memory_layers",
    "fusion",
    "fusion_bias",
    "window_size",
    "segment_length",
    "adapter_rank",
    "dropout",
    "dtype",
)
"""What an experiment says of its model where the rest comes from a pretrained one."""
NEW = ("memory_layer", "lora")
"""Parts of a model that `add_memory` makes: what their paths hold one of."""
IN_ATTENTION = KVMemoryConfig(qk_norm=False, writer_conv=1, gate_bias=4.0, evict="least_read", null_entry=False)
"""A memory that starts as attention does, and keeps what is read most."""


def add_memory(
    model: models.MemGPT | models.EncoderDecoder,
    memory: MemoryConfig | None = None,
    *,
    layers: Sequence[int] | None = None,
    window_size: int | None = None,
    segment_length: int | None = None,
    fusion: Fusion = "gated_add",
    fusion_bias: float = 0.0,
    adapter_rank: int | None = None,
    seed: int = 0,
) -> models.MemGPT | models.EncoderDecoder:
    """The model with a memory in some layers: until it is trained, it computes what it did.

        f = h + (1 - lambda) W_o r,   W_o = 0 at first

    The Reader's last projection starts at 0, so what it reads adds nothing, yet gradient reaches it, and through it,
    once it has moved, all of the memory.

    With `fusion="attention"` instead, the memory's entries stand in the softmax of self-attention, and its projections
    start as copies of those that attention has. To a query an entry is as far away as the window is long. So the model
    sees what has left its window without any training; `fusion_bias=20` makes it start as the model that it was.
    Biases of `relative` positions are not copied.

    Arguments:
        model: without memory, as from `from_pretrained`. It stays as it is. Of an `EncoderDecoder`, the decoder gets
            the memory.
        memory: the mechanism and its settings; default: `KVMemoryConfig()`, in attention one that starts as attention
            does and keeps the entries that are read most (`adding.IN_ATTENTION`).
        layers: which get one, counted from 0; default: all.
        window_size: tokens that self-attention is limited to; default: those of the model.
        segment_length: tokens after which a layer writes; default: the window.
        fusion: how a read joins the stream: one that leaves the stream alone where the read is 0, or `attention`, which
            needs a `KVMemoryConfig` with `qk_norm=False`, and gives it the model's heads.
        fusion_bias: initial bias of the fusion's gate; 0: half open.
        adapter_rank: rank of low-rank adapters (LoRA) beside attention and feed-forward; default: none.
        seed: of the new parameters.

    Raises:
        ValueError: the model has a memory or adapters, or a value does not fit it.
    """
    is_pair = isinstance(model, models.EncoderDecoder)
    old = model.config.decoder if is_pair else model.config
    plain = isinstance(old.memory, NoMemoryConfig) and old.adapter_rank is None
    check(plain, "the model has a memory or adapters already")
    window = old.window_size if window_size is None else window_size
    config = dataclasses.replace(
        old,
        memory=memory or (IN_ATTENTION if fusion == "attention" else KVMemoryConfig()),
        memory_layers=None if layers is None else tuple(layers),
        window_size=window,
        segment_length=window if segment_length is None else segment_length,
        fusion=fusion,
        fusion_bias=fusion_bias,
        adapter_rank=adapter_rank,
    )
    base, key = models.to_params(model), jax.random.key(seed)
    origin = getattr(model, "origin", None)
    if is_pair:
        params = base | {"decoder": with_base(config, base["decoder"], key)}
        return with_origin(models.from_params(dataclasses.replace(model.config, decoder=config), params), origin)
    return with_origin(models.from_params(config, with_base(config, base, key)), origin)


def with_base(config: ModelConfig, base: models.Params, key: jax.Array) -> models.Params:
    """Parameters of a model with memory, those of a model without it in their places; new ones as `add_memory` says."""
    has_memory = not isinstance(config.memory, NoMemoryConfig)
    valid = ("gated_add", "add", "concat", "attention")
    check(
        config.fusion in valid or not has_memory,
        f"fusion={config.fusion!r} changes the stream where nothing is read; valid: {', '.join(map(repr, valid))}",
    )

    def place(path, new):
        names = [str(part.key) for part in path]
        if NEW[0] in names or NEW[1] in names:
            return jnp.zeros_like(new) if names[-4:-1] == ["memory_layer", "memory", "output"] else new
        found = base
        for name in names:
            check(name in found, f"the model without memory has no {'/'.join(names)}")
            found = found[name]
        check(found.shape == new.shape, f"{'/'.join(names)} is {found.shape}, must be {new.shape}")
        return found

    params = jax.tree.map_with_path(place, models.functional(config).init(key))
    if has_memory and config.fusion == "attention":
        blocks = models.from_params(dataclasses.replace(config, dtype="float32"), params).blocks
        for layer in filter(config.layer_has_memory, range(config.num_layers)):
            params["blocks"][str(layer)]["memory_layer"]["memory"] |= _like_attention(blocks[layer].attention)
    return params


def _like_attention(attention: SelfAttention) -> models.Params:
    """Projections of a memory that is read as attention reads what is `window_size` tokens away.

    Positions turn queries and keys by linear maps, so that they can be part of W_q and W_k. The convolution in front of
    the Writer starts as none, and its gate as g = sigmoid(b_g).
    """
    config, memory, width = attention.config, attention.config.memory, attention.config.d_model
    check(
        not (memory.qk_norm or config.qk_norm),
        "fusion='attention' on a pretrained model needs memory.qk_norm=False, and a model without qk_norm",
    )
    x = jnp.eye(width + 1, width)[None]  # the rows of W, and 0 for b
    query, _, _ = attention.project_in(x, jnp.full(x.shape[:2], config.window_size, jnp.int32))
    _, key, value = attention.project_in(x, jnp.zeros(x.shape[:2], jnp.int32))
    new = {}
    for name, projected in (("query", query), ("key", key), ("value", value)):
        heads = jnp.repeat(projected[0], config.num_heads // projected.shape[2], axis=1).reshape(width + 1, -1)
        new[name] = {"kernel": heads[:-1] - heads[-1:], "bias": heads[-1]}
    if config.attention_bias == "none":
        del new["query"]["bias"]
    if memory.writer_conv > 1:
        new["conv"] = {"kernel": jnp.zeros((memory.writer_conv, width), jnp.float32).at[0].set(1.0)}
    if memory.gate != "none":
        bias = jnp.full(1, memory.gate_bias, jnp.float32)
        new["write_gate"] = {"kernel": jnp.zeros((width, 1), jnp.float32), "bias": bias}
    return new


class Starting(NamedTuple):
    """An experiment that starts from a pretrained model."""

    config: ExperimentConfig
    """The experiment with the architecture of the pretrained model."""
    params: Callable[[ExperimentConfig], models.Params]
    """The parameters of `config`, or of `config` with another memory: those of the pretrained model, and new ones that
    do not change its outputs yet."""
    origin: Origin | None
    """See `Pretrained.origin`."""

    def keep_origin(self, workdir: Path) -> None:
        """Write the origin into the folder of a run, where `from_pretrained(workdir)` finds it.

        Raises `ValueError` if it cannot be written.
        """
        if self.origin is not None:
            with writable(workdir / RUN_ORIGIN), replacing_files(workdir / RUN_ORIGIN) as folder:
                write_origin(folder, self.origin)


def starting(config: ExperimentConfig) -> Starting:
    """The experiment from the pretrained model that it names; errors as in `from_pretrained` and `add_memory`."""
    base = describe(config.pretrained)
    check(
        isinstance(config.model, ModelConfig) and isinstance(base.config, ModelConfig),
        f"pretrained={config.pretrained!r}: training does not start from the weights of an encoder-decoder",
    )
    kept = {name: getattr(config.model, name) for name in OWN}
    data = config.data
    if isinstance(data, TextConfig) and data.tokenizer == "pretrained":
        data = dataclasses.replace(data, tokenizer=config.pretrained)
    model = dataclasses.replace(base.config, **kept).run_like(config.model)

    def params(config: ExperimentConfig) -> models.Params:
        return with_base(config.model, base.params(), jax.random.key(config.seed))

    return Starting(dataclasses.replace(config, data=data, model=model), params, base.origin)
