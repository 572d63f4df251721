"""What a run will take, told before anything is compiled, and refused where the devices have less.

Only one block of each kind is traced, so that this is quick for a model of any depth.
"""

import dataclasses
import functools
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax import models, parallel
from memgpt_jax.config import ExperimentConfig, ModelConfig
from memgpt_jax.config_memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.models.blocks import CALLS
from memgpt_jax.models.functional import abstract_model
from memgpt_jax.training.errors import RunError
from memgpt_jax.training.liveness import Cost, cost
from memgpt_jax.training.optimizer import make_optimizer

CPU_SAVED = 1.1
"""What XLA on CPU keeps of attention and feed-forward, over what `liveness` says: fitted to its reports."""
BATCH_BYTES = 4 + 4 + 1 + 4 + 4
"""Of a token in a batch: itself, its target, reset, weight and target bytes."""


class Estimate(NamedTuple):
    """What a run takes."""

    parameters: int
    """Trainable values."""
    state_bytes: int
    """Of windows and memories, of all rows together."""
    flops_per_token: int
    """Operations in matmuls, in the forward and the backward pass of a training step; see `Cost.flops`."""
    terms: dict[str, int]
    """What is in the memory of each device when it holds most, in bytes."""

    @property
    def device_bytes(self) -> int:
        """Memory that a training step takes on each device: arguments, results and temporaries."""
        return sum(self.terms.values())

    def __str__(self) -> str:
        return (
            f"{self.parameters:,} parameters, {in_bytes(self.state_bytes)} of state, about "
            f"{in_bytes(self.device_bytes)} of memory on each device, {self.flops_per_token / 1e6:,.3g} MFLOP per token"
        )


def check_memory(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> Estimate:
    """The `Estimate` of a run.

    Raises:
        RunError: a device has less memory than that.
        ValueError: an implementation of attention or of the memory's read does not work on this mesh.
    """
    model = config.model
    if model != model.with_implementation("auto"):  # tracing a block refuses kernels that do not work here
        rows, _ = _share(config, mesh)
        _block_cost(_one_block(model, True), rows, config.row_length or config.training.sequence_length, mesh)
    found, limit = estimate(config, mesh), device_memory(mesh)
    if limit is not None and found.device_bytes > limit:
        largest = sorted(found.terms.items(), key=lambda term: -term[1])[:4]
        raise RunError(
            f"a training step takes about {in_bytes(found.device_bytes)} of memory on each device, which has "
            f"{in_bytes(limit)}; most of it: {', '.join(f'{name} {in_bytes(size)}' for name, size in largest)}"
        )
    return found


def device_memory(mesh: jax.sharding.Mesh) -> int | None:
    """Bytes that a device of this process may use: an accelerator's own, or its share of the machine's memory.

    None where the device does not say. What a container may use of the machine is not asked.
    """
    device = mesh.local_devices[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(mesh.local_devices)


def in_bytes(size: float) -> str:
    """`1.5 GB` and so on."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def estimate(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> Estimate:
    """What a training step takes: operations, and memory of each device of a mesh.

    Blocks run in order and then backwards; what is saved piles up on the way there, gradients on the way back:

        forward of a block:   saved by the blocks before it + what it takes
        loss:                 saved by all blocks + what it takes
        backward of a block:  saved by the blocks before it + gradients of the blocks after it + what it takes

    and at any time parameters, optimizer state, memories and the batch. Heads, hidden channels and entries are taken
    to be split over the mesh as `memgpt_jax.parallel` splits parameters and memories.
    """
    model, training = config.model.with_implementation("portable"), config.training
    config = dataclasses.replace(config, model=model)
    has_memory = not isinstance(model.memory, NoMemoryConfig)
    owners = [has_memory and model.layer_has_memory(layer) for layer in range(model.num_layers)]
    length = config.row_length or training.sequence_length
    rows, local = _share(config, mesh)
    kinds = {owner: _shapes(_one_block(model, owner), training.batch_size) for owner in {False, *owners}}
    costs = {owner: _block_cost(_one_block(local, owner), rows, length, mesh) for owner in kinds}
    loss = _loss_cost(_one_block(local, False), rows, length, mesh)

    on_device = functools.partial(_device_bytes, rules=parallel.PARAMETERS, mesh=mesh)
    init = functools.partial(jax.eval_shape, make_optimizer(config.optimizer, training.steps).init)
    outer = kinds[False].outer
    weights = {owner: on_device(kind.block) for owner, kind in kinds.items()}
    moments = functools.cache(lambda name, owner: on_device(init({"blocks": {name: kinds[owner].block}})))
    states = {owner: on_device(kind.state, rules=parallel.STATE) for owner, kind in kinds.items()}
    new = {owner: _bytes(_shapes(_one_block(local, owner), rows).state) for owner in kinds}
    outer_weights, embedding = on_device(outer), on_device(outer["embedding"])
    total = lambda sizes, layers=owners: sum(sizes[owner] for owner in layers)  # noqa: E731
    on_cpu = jax.default_backend() == "cpu"
    # There, XLA recomputes a block before the one after it is done; unless a loop keeps them apart.
    at_work = 2 if on_cpu and model.remat != "none" and not model.scan_layers else 1
    always = {
        "parameters": outer_weights + total(weights),
        "optimizer state": on_device(init(outer))
        + sum(moments(str(layer) if config.optimizer.trainable else "", owner) for layer, owner in enumerate(owners)),
        "windows and memories": total(states),
        "batch": config.optimizer.accumulate_steps * rows * length * BATCH_BYTES,
    }
    if config.optimizer.accumulate_steps > 1:
        always["accumulated gradients"] = always["parameters"]
    if model.scan_layers:
        always["stacked parameters, windows and memories"] = total(weights) + total(states)

    def moment(before: int, gradients: int, work: str, size: int) -> dict[str, int]:
        """The terms when `before` blocks have been run forward and not yet backward."""
        kept = owners if model.scan_layers else owners[:before]  # a loop keeps room for all, from first to last
        kept_plain = sum(costs[False].turn - new[False] for _ in kept)
        kept_memory = sum(costs[owner].turn - new[owner] for owner in kept) - kept_plain
        return always | {
            "new windows and memories": total(new),
            "saved activations": round(kept_plain * (CPU_SAVED if on_cpu else 1)),
            "saved activations of memories": kept_memory,
            "gradients": gradients,
            work: size,
        }

    found = [moment(len(owners), 0, "logits and loss", loss.peak)]
    for layer, owner in enumerate(owners):
        behind = outer_weights + total(weights, owners if model.scan_layers else owners[layer + 1 :])
        found.append(moment(layer, 0, "work of one block", costs[owner].before - new[owner]))
        found.append(moment(layer, behind, "work of one block", at_work * (costs[owner].after - new[owner])))
    found.append(moment(0, always["parameters"], "gradient of the embedding", embedding))
    operations = _loss_cost(_one_block(model, False), rows, length, mesh).flops
    operations += sum(_block_cost(_one_block(model, owner), rows, length, mesh).flops for owner in owners)
    return Estimate(
        parameters=sum(_count(tree) for tree in (outer, *(kinds[owner].block for owner in owners))),
        state_bytes=sum(_bytes(kinds[owner].state) for owner in owners),
        flops_per_token=operations // (rows * length),
        terms=max(found, key=lambda terms: sum(terms.values())),
    )


class _Shapes(NamedTuple):
    """Of a model of one block."""

    block: Any  # its parameters
    outer: Any  # all other parameters
    state: Any  # of the block


@functools.lru_cache(maxsize=16)
def _shapes(config: ModelConfig, rows: int) -> _Shapes:
    model = abstract_model(config)
    params = models.split(model)
    state = jax.eval_shape(lambda: model.blocks[0].init_state(rows))
    return _Shapes(params["blocks"]["0"], {name: tree for name, tree in params.items() if name != "blocks"}, state)


def _one_block(config: ModelConfig, memory: bool) -> ModelConfig:
    """The model with one block, with or without a memory."""
    kept = config.memory if memory else NoMemoryConfig()
    return dataclasses.replace(config, num_layers=1, memory_layers=None, memory=kept)


def _share(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> tuple[int, ModelConfig]:
    """Rows and the part of the model that one device of a mesh works on."""
    model, size = config.model, dict(mesh.shape)
    rows = config.training.batch_size // (size["data"] * size["fsdp"])
    tensor, sequence = size["tensor"], size["sequence"]
    memory = model.memory
    if getattr(memory, "match_state_bytes", None):
        memory = abstract_model(_one_block(model, True)).blocks[0].memory_layer.memory.config  # with its size
    if getattr(memory, "num_heads", 0):
        memory = dataclasses.replace(memory, num_heads=memory.num_heads // tensor)
    if isinstance(memory, KVMemoryConfig):
        entries = memory.memory_size // sequence
        initial = min(memory.initial_entries, entries)
        memory = dataclasses.replace(memory, memory_size=entries, initial_entries=initial)
    return rows, dataclasses.replace(
        model,
        num_heads=model.num_heads // tensor,
        num_kv_heads=model.kv_heads // tensor,
        head_dim=model.attention_head_dim,
        d_ff=model.feed_forward_dim // tensor,
        vocab_size=model.vocab_size // tensor if model.vocab_size % tensor == 0 else model.vocab_size,
        memory=memory,
        dtype="float32" if jax.default_backend() == "cpu" else model.dtype,  # XLA computes in float32 there
    )


@functools.lru_cache(maxsize=16)
def _block_cost(config: ModelConfig, rows: int, length: int, mesh: jax.sharding.Mesh) -> Cost:
    """Of a block's forward pass, then of its backward pass; its input, its new state and its gradients count."""
    structure, params = nnx.split(abstract_model(config).blocks[0])
    state = _shapes(config, rows).state
    x = jax.ShapeDtypeStruct((rows, length, config.d_model), config.dtype)
    flags = jax.ShapeDtypeStruct((rows, length), bool)
    positions = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0)) if config.dropout else None
    promise = "aligned" if length % config.segment_length == 0 else None

    def step(gradient, x, params, state, positions, reset, valid, key):
        def block(params, x):
            call = CALLS[config.remat]
            y, after, _ = call(nnx.merge(structure, params), x, state, positions, reset, valid, promise, key)
            return y, after

        _, backward, after = jax.vjp(block, params, x, has_aux=True)
        return backward(gradient), after

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        jaxpr = jax.make_jaxpr(step)(x, x, params, state, positions, flags, flags, key)
    return cost(jaxpr, owned=[1], turn=0)


@functools.lru_cache(maxsize=16)
def _loss_cost(config: ModelConfig, rows: int, length: int, mesh: jax.sharding.Mesh) -> Cost:
    """Of the loss of the last hidden states, and its gradient."""
    inner, outer, _ = _shapes(config, rows)
    x = jax.ShapeDtypeStruct((rows, length, config.d_model), config.dtype)
    targets = jax.ShapeDtypeStruct((rows, length), jnp.int32)

    def loss(x, outer, inner, targets):
        model = models.merge(config, outer | {"blocks": {"0": inner}})
        x = model.final_norm(x) if hasattr(model, "final_norm") else x
        return jnp.sum(model.score_hidden(x, targets).losses)

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, outer, inner, targets)
    return cost(jaxpr, owned=[0])


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _device_bytes(tree: Any, rules: tuple, mesh: jax.sharding.Mesh) -> int:
    """Bytes of a tree of shapes on each device of a mesh."""
    split = parallel.shardings(tree, rules, mesh)
    shapes = jax.tree.map(lambda x, part: jax.ShapeDtypeStruct(part.shard_shape(x.shape), x.dtype), tree, split)
    return _bytes(shapes)
