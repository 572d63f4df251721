"""The optimizer: an optax chain chosen by `OptimizerConfig`, with parameters told apart by their path."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from memgpt_jax.config.experiment import OptimizerConfig

STACKED_BYTES = 2**16  # of the largest arrays that `stacked` copies into one


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate of the update that follows `count` updates, of `steps` in all.

    With n = count + 1, so that no update is wasted on a rate of 0:
        n <= warmup_steps:  learning_rate · n / warmup_steps
        after that:         a half cosine from learning_rate down to final_lr_fraction · learning_rate at n = steps
    A run no longer than its warm-up never reaches the cosine.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(steps, config.warmup_steps + 1),
        end_value=config.final_lr_fraction * config.learning_rate,
    )
    return lambda count: schedule(jnp.asarray(count, jnp.float32) + 1)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The chain: clip by global norm, update rule, decoupled weight decay, learning rate, multiplier of gates.

    `clip_norm=0` leaves gradients as they are. Weight decay belongs to `adamw` alone, and reaches only what `decays`.
    """
    rules = {
        "adamw": [
            stacked(optax.scale_by_adam(config.b1, config.b2)),
            optax.add_decayed_weights(config.weight_decay, mask=decays),
        ],
        "adam": [stacked(optax.scale_by_adam(config.b1, config.b2))],
        "sgd": [stacked(optax.trace(config.b1))],
    }
    rule = optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        *rules[config.name],
        optax.scale_by_learning_rate(learning_rate_schedule(config, steps)),
        optax.masked(optax.scale(config.gate_lr_multiplier), is_gate),
    )
    if not config.trainable:
        return rule
    return optax.multi_transform({True: rule, False: optax.set_to_zero()}, partial(is_trained, config))


def stacked(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """A rule that treats every value alike, with the small arrays that have one place in their layers held as one.

    A deep model has hundreds of small arrays, and each array that a step takes and gives costs the host microseconds.
    In the state of the rule, arrays whose paths differ in numbers alone are one array [layers, ...], under "stacked"
    and the path of the first of them.
    """

    def init(params):
        return rule.init(_stack(params))

    def update(updates, state, params=None):
        new, state = rule.update(_stack(updates), state)
        new, leaves = flatten_dict(new), {}
        for path, members in _groups(updates).items():
            leaves |= zip(members, jnp.unstack(new[path]) if len(members) > 1 else [new[path]], strict=True)
        return jax.tree.unflatten(jax.tree.structure(updates), [leaves[place] for place in sorted(leaves)]), state

    return optax.GradientTransformation(init, update)


def _stack(tree: Any) -> dict[str, Any]:
    leaves = jax.tree.leaves(tree)
    join = lambda members: jnp.stack([leaves[i] for i in members]) if len(members) > 1 else leaves[members[0]]  # noqa: E731
    return unflatten_dict({path: join(members) for path, members in _groups(tree).items()})


def _groups(tree: Any) -> dict[tuple[str, ...], list[int]]:
    """The arrays that `stacked` holds, by path: the places in `jax.tree.leaves` of those that each is made of."""
    found = {}
    for place, (path, leaf) in enumerate(jax.tree.leaves_with_path(tree)):
        names = path_names(path)
        small = leaf.size * leaf.dtype.itemsize <= STACKED_BYTES
        alike = (*("*" if name.isdigit() else name for name in names), leaf.shape, leaf.dtype) if small else names
        found.setdefault(alike, (names, []))[1].append(place)
    return {("stacked", *names) if len(members) > 1 else names: members for names, members in found.values()}


def is_trained(config: OptimizerConfig, params: Any) -> Any:
    """Tree of bools: true for the parameters that `config.trainable` names."""
    trained = lambda name: not config.trainable or any(re.search(pattern, name) for pattern in config.trainable)  # noqa: E731
    return jax.tree.unflatten(jax.tree.structure(params), list(map(trained, parameter_names(params))))


def check_trainable(config: OptimizerConfig, params: Any) -> None:
    """Raise `ValueError` where a pattern of `config.trainable` names no parameter."""
    names = parameter_names(params)
    for pattern in config.trainable:
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(f"optimizer.trainable: {pattern!r} is in no parameter's path, such as {names[0]}")


def is_gate(params: Any) -> Any:
    """Tree of bools: true for the parameters of write gates and fusion gates."""
    return jax.tree.map_with_path(lambda path, _: _under_gate(path), params)


def decays(params: Any) -> Any:
    """Tree of bools: true for matrices and embeddings; not for norms, biases, gates, temperatures, learned entries."""

    def leaf(path, _):
        return _last_word(path_names(path)[-1]) in ("kernel", "embedding") and not _under_gate(path)

    return jax.tree.map_with_path(leaf, params)


def _under_gate(path: tuple) -> bool:
    return any(_last_word(name) == "gate" for name in path_names(path))


def _last_word(name: str) -> str:
    """`gate` of `write_gate`, `embedding` of `position_embedding`."""
    return name.rpartition("_")[-1]


def parameter_names(params: Any) -> list[str]:
    """The path of every array, such as "blocks/0/memory_layer/fusion/gate/bias", in the order of `jax.tree.leaves`."""
    return ["/".join(path_names(path)) for path, _ in jax.tree.leaves_with_path(params)]


def path_names(path: tuple) -> tuple[str, ...]:
    """The names along one path of a tree."""
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)
