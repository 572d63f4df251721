"""What a run will take, told before anything is compiled, and refused where the devices have less.

Only one block of each kind is traced, so that this is quick for a model of any depth.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax import data, models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import ModelConfig, XLNetConfig
from memgpt_jax.errors import RunError
from memgpt_jax.memory import resolved
from memgpt_jax.models.blocks import CALLS
from memgpt_jax.models.model_functions import abstract_model
from memgpt_jax.models.xlnet import DETACHED, Relations
from memgpt_jax.studies.machine import memory_limit
from memgpt_jax.training.liveness import Cost, cost
from memgpt_jax.training.optimizer import Groups, make_optimizer

CPU_SAVED = 1.1
"""What XLA on CPU keeps of attention and feed-forward, over what `liveness` says: fitted to its reports."""


class Estimate(NamedTuple):
    """What a run takes."""

    parameters: int
    """Trainable values."""
    state_bytes: int
    """Of windows and memories, of all rows together."""
    flops_per_token: int
    """Operations in matmuls for each of the batch's `tokens`, in the forward and the backward pass of a training step;
    see `Cost.flops`."""
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
    if config.model != config.model.with_kernels("auto"):  # tracing a block refuses kernels that fail here
        rows, lengths = _rows(config, mesh), _lengths(config)
        for name, stack in config.model.stacks.items():
            _block_cost(one_block(stack, True), rows, *lengths[name], mesh)
    found, limit = estimate(config, mesh), device_memory(mesh)
    if limit is not None and found.device_bytes > limit:
        largest = sorted(found.terms.items(), key=lambda term: -term[1])[:4]
        raise RunError(
            f"a training step takes about {in_bytes(found.device_bytes)} of memory on each device, which has "
            f"{in_bytes(limit)}; most of it: {', '.join(f'{name} {in_bytes(size)}' for name, size in largest)}"
        )
    return found


def device_memory(mesh: jax.sharding.Mesh) -> int | None:
    """Bytes that a device of this process may use: an accelerator's own memory, or its share of `memory_limit`.

    None if an accelerator does not report it.
    """
    device = mesh.local_devices[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    return memory_limit() // len(mesh.local_devices)


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

    and at any time parameters, optimizer state, memories and the batch. Of an encoder-decoder, the encoder's blocks run
    before those of the decoder.

    On a mesh each device works on its share of rows, heads, hidden channels and entries, as `memgpt_jax.parallel`
    splits them. Parameters that `fsdp` splits are gathered for that, and stay so until the backward pass has used them;
    and once all gradients are there, they are summed over the devices that share out the rows:

        summation:            gradients before and after it + an update of the embedding

    With the meshes, sizes and memories of `tests/checkers/estimates_on_meshes.py`, this is 0.87 to 1.08 times what the
    compiler reports on CPU; with `remat="block"` it was 1.07 to 1.27 times that on one device and with `tensor=2`. Not
    counted on a mesh: what re-layouts of activations take. Mechanisms other than those, and encoders, were not compared
    on meshes.
    """
    config = dataclasses.replace(config, model=resolved(config.model.with_kernels("portable")))
    training, rows, lengths, size = config.training, _rows(config, mesh), _lengths(config), dict(mesh.shape)
    # Spelled out like a share of them, so that on one device they are equal, and traced once.
    stacks = {name: dataclasses.replace(_share(it), dtype=it.dtype) for name, it in config.model.stacks.items()}
    local = {name: _share(stack, size["tensor"], size["sequence"]) for name, stack in stacks.items()}
    layers = [
        (name, stack.layer_has_memory(layer)) for name, stack in stacks.items() for layer in range(stack.num_layers)
    ]
    used = {*layers, *((name, False) for name in stacks)}
    kinds = {(name, owner): _shapes(one_block(stacks[name], owner), training.batch_size) for name, owner in used}
    costs = {kind: _block_cost(one_block(local[kind[0]], kind[1]), rows, *lengths[kind[0]], mesh) for kind in used}
    last = [*stacks][-1]
    loss = _loss_cost(one_block(local[last], False), rows, lengths[last].tokens, mesh)
    outer = {name: dict(kinds[name, False].outer) for name in stacks}
    for name in stacks:
        if name != last:
            del outer[name]["embedding"]  # they share it

    on_device = functools.partial(_device_bytes, shardings=parallel.parameter_shardings, mesh=mesh)
    groups = Groups(gate=_false_tree, decay=_false_tree)  # they do not change the state of the optimizer
    init = functools.partial(jax.eval_shape, make_optimizer(config.optimizer, training.steps, groups).init)
    weights = {kind: on_device(shapes.block) for kind, shapes in kinds.items()}
    moments = functools.cache(lambda layer, kind: on_device(init({"blocks": {layer: kinds[kind].block}})))
    states = {kind: on_device(shapes.state, shardings=parallel.state_shardings) for kind, shapes in kinds.items()}
    new = {(name, owner): _bytes(_shapes(one_block(local[name], owner), rows).state) for name, owner in used}
    outer_weights, embedding = on_device(outer), on_device({"embedding": outer[last]["embedding"]})
    width = {name: rows * length.tokens for name, length in lengths.items()}
    gathered = {kind: _gathered_bytes(shapes.block, mesh, width[kind[0]]) for kind, shapes in kinds.items()}
    outer_gathered = _gathered_bytes(outer, mesh)
    total = lambda sizes, layers=layers: sum(sizes[kind] for kind in layers)  # noqa: E731
    on_cpu = jax.default_backend() == "cpu"
    always = {
        "parameters": outer_weights + total(weights),
        "optimizer state": on_device(init(outer))
        + sum(moments(str(layer) if config.optimizer.trainable else "", kind) for layer, kind in enumerate(layers)),
        "windows and memories": total(states),
        "batch": training.steps_per_call
        * config.optimizer.accumulate_steps
        * rows
        * _bytes(data.batch_shapes(config.data, training))
        // training.batch_size,
    }
    source = lengths[last].source
    if source is not None:  # before and after its last norm
        shape = (2, rows, source, local[last].d_model)
        always["what the encoder has read"] = _bytes(jax.ShapeDtypeStruct(shape, local[last].dtype))
    if outer_gathered:
        always["embeddings gathered from other devices"] = outer_gathered
    if config.optimizer.accumulate_steps > 1:
        always["accumulated gradients"] = always["parameters"]
    scanned = [kind for kind in layers if stacks[kind[0]].scan_layers]
    if scanned:
        always["stacked parameters, windows and memories"] = total(weights, scanned) + total(states, scanned)

    def moment(before: int, gradients: int, work: str, size: int, at_work: tuple[int, ...] = ()) -> dict[str, int]:
        """The terms when `before` blocks have run forward and not yet backward, and those at places `at_work` run."""
        # A loop keeps room for all blocks of its stack, from first to last.
        kept = [kind for place, kind in enumerate(layers) if place < before or kind in scanned]
        kept_plain = sum(costs[name, False].turn - new[name, False] for name, _ in kept)
        kept_memory = sum(costs[kind].turn - new[kind] for kind in kept) - kept_plain
        # What is repeated gathers again; what is not keeps its parameters for the backward pass.
        # On CPU, XLA gathers them all at the start.
        whole = {
            place
            for place, kind in enumerate(layers)
            if kind not in scanned and (place < before if stacks[kind[0]].remat == "none" else on_cpu)
        }
        return always | {
            "parameters gathered from other devices": total(gathered, [layers[place] for place in whole | {*at_work}]),
            "new windows and memories": total(new),
            "saved activations": round(kept_plain * (CPU_SAVED if on_cpu else 1)),
            "saved activations of memories": kept_memory,
            "gradients": gradients,
            work: size,
        }

    found = [moment(len(layers), 0, "logits and loss", loss.peak)]
    for place, kind in enumerate(layers):
        stack, following = stacks[kind[0]], min(place + 1, len(layers) - 1)
        behind = outer_weights + total(weights, [x for i, x in enumerate(layers) if i > place or x in scanned])
        # On CPU, XLA recomputes a block before the one after it is done; unless a loop keeps them apart.
        at_work = (place, following) if on_cpu and stack.remat != "none" and not stack.scan_layers else (place,)
        work = sum(costs[layers[i]].after - new[layers[i]] for i in at_work)
        found.append(moment(place, 0, "work of one block", costs[kind].before - new[kind], (place,)))
        found.append(moment(place, behind, "work of one block", work, at_work))
    found.append(moment(0, always["parameters"], "gradient of the embedding", embedding))
    if size["data"] * size["fsdp"] > 1:
        # XLA sums all gradients in one operation, so that they are all there at once; then each is laid out anew.
        params = (outer, [kinds[kind].block for kind in layers])
        whole = _device_bytes(params, parallel.parameter_shardings, _without_fsdp(mesh))
        update = moment(0, always["parameters"], "gradients that are summed over devices", whole + 2 * embedding)
        found.append(update | dict.fromkeys((name for name in update if "gathered" in name), 0))
    tokens = lengths[last].tokens
    operations = _loss_cost(one_block(stacks[last], False), rows, tokens, mesh).flops
    operations += sum(
        _block_cost(one_block(stacks[name], owner), rows, *lengths[name], mesh).flops for name, owner in layers
    )
    return Estimate(
        parameters=sum(_count(tree) for tree in (outer, *(kinds[kind].block for kind in layers))),
        state_bytes=sum(_bytes(kinds[kind].state) for kind in layers),
        flops_per_token=operations // (rows * tokens),
        terms=max(found, key=lambda terms: sum(terms.values())),
    )


class _Lengths(NamedTuple):
    """Of what a stack reads."""

    tokens: int
    source: int | None  # that it attends to


def _lengths(config: ExperimentConfig) -> dict[str, _Lengths]:
    """For each stack of the model."""
    batch = data.batch_shapes(config.data, config.training)
    tokens, source = (batch.inputs[name].shape[1] if name in batch.inputs else None for name in ("tokens", "source"))
    if source is None:
        return {name: _Lengths(tokens, None) for name in config.model.stacks}
    return {"encoder": _Lengths(source, None), "decoder": _Lengths(tokens, source)}


class _Shapes(NamedTuple):
    """Of a model of one block."""

    block: Any  # its parameters
    outer: Any  # all other parameters
    state: Any  # of the block


@functools.lru_cache(maxsize=16)
def _shapes(config: ModelConfig, rows: int) -> _Shapes:
    model = abstract_model(config)
    params = models.to_params(model)
    state = jax.eval_shape(lambda: model.blocks[0].init_state(rows))
    return _Shapes(params["blocks"]["0"], {name: tree for name, tree in params.items() if name != "blocks"}, state)


def one_block(config: ModelConfig, memory: bool) -> ModelConfig:
    """The model with one block, with or without a memory."""
    kept = config.memory if memory else NoMemoryConfig()
    return dataclasses.replace(config, num_layers=1, memory_layers=None, memory=kept)


def _rows(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> int:
    """Of a batch, how many one device of a mesh works on."""
    size = dict(mesh.shape)
    return config.training.batch_size // (size["data"] * size["fsdp"])


def _share(model: ModelConfig, tensor: int = 1, sequence: int = 1) -> ModelConfig:
    """The part of a stack that one device works on, where so many share out its heads and its entries."""
    memory = model.memory
    if getattr(memory, "num_heads", 0):
        memory = dataclasses.replace(memory, num_heads=memory.num_heads // tensor)
    if isinstance(memory, KVMemoryConfig):
        entries = memory.memory_size // sequence
        initial = min(memory.initial_entries, entries)
        memory = dataclasses.replace(memory, memory_size=entries, initial_entries=initial)
    return dataclasses.replace(
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
def _block_cost(config: ModelConfig, rows: int, length: int, source: int | None, mesh: jax.sharding.Mesh) -> Cost:
    """Of a block's forward pass, then of its backward pass; its input, its new state and its gradients count.

    `source` is the length of what it attends to.
    """
    structure, params = nnx.split(abstract_model(config).blocks[0])
    state, dtype, streams = _shapes(config, rows).state, config.dtype, isinstance(config, XLNetConfig)
    x = jax.ShapeDtypeStruct((rows, (1 + streams) * length, config.d_model), dtype)
    attended = None if source is None else jax.ShapeDtypeStruct((rows, source, config.d_model), dtype)
    flags = jax.ShapeDtypeStruct((rows, length), bool)
    positions = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0)) if config.dropout else None
    alignment = config.alignment_of(length)
    bias = None
    if config.position == "relative":
        distances = config.window_size if config.causal else 2 * length - 1
        bias = jax.ShapeDtypeStruct((config.num_heads, distances), jnp.float32)

    def step(gradient, x, params, attended, bias, state, positions, reset, valid, key):
        def block(params, x, attended, bias):
            block, call = nnx.merge(structure, params), CALLS[config.remat]
            if streams:  # of content and of queries, which stand behind each other here
                x, relations = tuple(jnp.split(x, 2, axis=1)), Relations(positions, None)
                x, after, _ = call(block, x, state, relations, reset, valid, DETACHED[alignment], key)
                return jnp.concatenate(x, axis=1), after
            start = state
            if attended is not None:
                read = block.cross_attention.read_source(attended, jnp.ones(attended.shape[:2], bool))
                start = state._replace(source=read)
            y, after, _ = call(block, x, start, positions, reset, valid, alignment, key, bias)
            return y, after

        _, backward, after = jax.vjp(block, params, x, attended, bias, has_aux=True)
        return backward(gradient), after

    with jax.sharding.use_abstract_mesh(_unnamed(mesh)):
        jaxpr = jax.make_jaxpr(step)(x, x, params, attended, bias, state, positions, flags, flags, key)
    return cost(jaxpr, owned=[1], turn=0)


@functools.lru_cache(maxsize=16)
def _loss_cost(config: ModelConfig, rows: int, length: int, mesh: jax.sharding.Mesh) -> Cost:
    """Of the loss of the last hidden states, and its gradient."""
    inner, outer, _ = _shapes(config, rows)
    x = jax.ShapeDtypeStruct((rows, length, config.d_model), config.dtype)
    targets = jax.ShapeDtypeStruct((rows, length), jnp.int32)

    def loss(x, outer, inner, targets):
        model = models.from_params(config, outer | {"blocks": {"0": inner}})
        x = model.final_norm(x) if hasattr(model, "final_norm") else x
        heads = {"tokens", "masked"} & set(getattr(config, "heads", ("tokens",)))
        scores = model.score_hidden(x, dict.fromkeys(heads, targets))
        return sum((jnp.sum(found.losses) for found in scores.values()), jnp.float32(0))

    with jax.sharding.use_abstract_mesh(_unnamed(mesh)):
        jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, outer, inner, targets)
    return cost(jaxpr, owned=[0])


def _gathered_bytes(tree: Any, mesh: jax.sharding.Mesh, tokens: float = math.inf) -> int:
    """Bytes of the parameters split by `fsdp`, where each device gathers all that `tensor` leaves it.

    With both axes, XLA gathers a kernel only where it is smaller than what it is multiplied with, of so many tokens.
    """
    if mesh.shape["fsdp"] == 1:
        return 0
    wholes, shares = (
        jax.tree.leaves(_local(tree, parallel.parameter_shardings, m)) for m in (_without_fsdp(mesh), mesh)
    )
    pairs = [(whole, share) for whole, share in zip(wholes, shares, strict=True) if whole.shape != share.shape]
    return _bytes([whole for whole, _ in pairs if mesh.shape["tensor"] == 1 or whole.shape[-1] < tokens])


def _without_fsdp(mesh: jax.sharding.Mesh) -> jax.sharding.AbstractMesh:
    """A mesh on which each device holds what it holds while it works: parameters gathered over `fsdp`."""
    size = dict(mesh.shape) | {"fsdp": 1}
    return jax.sharding.AbstractMesh(tuple(size.values()), tuple(size))


def _unnamed(mesh: jax.sharding.Mesh) -> jax.sharding.AbstractMesh:
    """A mesh under which the share of one device is traced as on that mesh, but not split again."""
    return jax.sharding.AbstractMesh((*(1 for _ in parallel.AXES), mesh.size), (*parallel.AXES, "devices"))


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _device_bytes(tree: Any, shardings: Callable, mesh: jax.sharding.Mesh) -> int:
    """Bytes of a tree of shapes on each device of a mesh."""
    return _bytes(_local(tree, shardings, mesh))


def _local(tree: Any, shardings: Callable, mesh: jax.sharding.Mesh) -> Any:
    """A tree of shapes as each device of a mesh holds it."""
    split = shardings(tree, mesh)
    return jax.tree.map(lambda x, part: jax.ShapeDtypeStruct(part.shard_shape(x.shape), x.dtype), tree, split)


def _false_tree(tree: Any) -> Any:
    return jax.tree.map(lambda _: False, tree)
