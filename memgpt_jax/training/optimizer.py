"""The optimizer: an optax chain chosen by `OptimizerConfig`; modules declare which parameters are gates or decay.

A module declares with two class attributes, tuples of names of its attributes:

- `gates`: modules or parameters that are gates. They train with `gate_lr_multiplier` and have no weight decay.
- `decayed`: parameters of its own (`nnx.Param`) that have weight decay.

A configuration may leave out an attribute that is declared; a name that no method of the class uses is an error.

Without a declaration, the kernels and embeddings of Flax's own layers have weight decay, and no other parameter has.
"""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import ArrayLike

from memgpt_jax.config.experiment import OptimizerConfig
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.models.model_functions import abstract_model, with_string_keys
from memgpt_jax.ops.trees import named_leaves, path_name

FLAX_LAYERS = {
    (nnx.Linear, nnx.LinearGeneral, nnx.Einsum, nnx.Conv, nnx.ConvTranspose): ("kernel",),
    (nnx.Embed,): ("embedding",),
}
"""Parameters of Flax's layers that have weight decay."""
STACKED_BYTES = 2**16
"""Size of the largest arrays that `stacked` copies into one."""


class Groups(NamedTuple):
    """How each parameter is trained: trees of bool in the structure of a model's parameters."""

    gate: Any
    """Its updates are multiplied by `gate_lr_multiplier`."""
    decay: Any
    """It has weight decay."""


@functools.lru_cache(maxsize=64)
def parameter_groups(config: BaseModelConfig) -> Groups:
    """The groups of a model's parameters, as its modules declare them."""
    return groups_of(abstract_model(config))


def groups_of(module: nnx.Module) -> Groups:
    """The groups of a module's parameters.

    Raises:
        ValueError: a class declares a name that is no attribute of it.
    """
    decayed, gates = set(), set()
    for path, part in nnx.iter_modules(module):
        names = tuple(map(str, path))
        _check_declared(part)
        declared = [*getattr(type(part), "decayed", ())]
        for layers, parameters in FLAX_LAYERS.items():
            declared += parameters if isinstance(part, layers) else ()
        decayed |= {(*names, name) for name in declared}
        gates |= {(*names, name) for name in getattr(type(part), "gates", ())}

    paths = flatten_dict(with_string_keys(nnx.to_pure_dict(nnx.state(module, nnx.Param))))
    gate = {path: any(path[:length] in gates for length in range(1, len(path) + 1)) for path in paths}
    decay = {path: path in decayed and not gate[path] for path in paths}
    return Groups(gate=unflatten_dict(gate), decay=unflatten_dict(decay))


def _check_declared(part: nnx.Module) -> None:
    """Raise `ValueError` if `gates` or `decayed` name what neither the module has nor a method of its class uses."""
    members = [member for base in type(part).__mro__ for member in vars(base).values() if inspect.isfunction(member)]
    used = {name for member in members for name in inspect.unwrap(member).__code__.co_names}
    for field in ("gates", "decayed"):
        for name in getattr(type(part), field, ()):
            if name not in used and not hasattr(part, name):
                raise ValueError(f"{type(part).__name__}.{field}: {name!r} is no attribute of the class")


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> Callable[[ArrayLike], jax.Array]:
    """Learning rate of the update that follows `count` of `steps` updates.

    With n = count + 1, so that the first update has a rate above 0:
        n <= warmup_steps:  learning_rate · n / warmup_steps
        after that:         a half cosine from learning_rate down to final_lr_fraction · learning_rate at n = steps
    A run of at most `warmup_steps` steps never reaches the cosine.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(steps, config.warmup_steps + 1),
        end_value=config.final_lr_fraction * config.learning_rate,
    )
    return lambda count: jnp.asarray(schedule(jnp.asarray(count, jnp.float32) + 1))


def make_optimizer(config: OptimizerConfig, steps: int, groups: Groups) -> optax.GradientTransformation:
    """The chain: clip by global norm, update rule, decoupled weight decay, learning rate, multipliers.

    Args:
        config: the optimizer's settings. `clip_norm=0` leaves gradients unchanged; only `adamw` has weight decay.
        steps: number of updates of the run, for the schedule.
        groups: which parameters are gates and which have weight decay (`parameter_groups`).
    """
    rules = {
        "adamw": [
            stacked(optax.scale_by_adam(config.b1, config.b2)),
            optax.add_decayed_weights(config.weight_decay, mask=groups.decay),
        ],
        "adam": [stacked(optax.scale_by_adam(config.b1, config.b2))],
        "sgd": [stacked(optax.trace(config.b1))],
    }
    rule = optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        *rules[config.name],
        optax.scale_by_learning_rate(learning_rate_schedule(config, steps)),
        optax.masked(optax.scale(config.gate_lr_multiplier), groups.gate),
        *([optax.stateless(lambda updates, params: _multiplied(config, updates))] if config.factors else []),
    )
    if not config.trainable:
        return rule
    is_trained_of = functools.partial(is_trained, config)
    return optax.multi_transform({True: rule, False: optax.set_to_zero()}, is_trained_of)


def _multiplied(config: OptimizerConfig, updates: Any) -> Any:
    """The updates times their factors of `lr_multipliers`."""

    def factor(path: tuple):
        name = path_name(path)
        return next((factor for pattern, factor in config.factors if re.search(pattern, name)), 1.0)

    return jax.tree.map_with_path(lambda path, update: update * factor(path), updates)


def stacked(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """An elementwise rule whose state holds the small arrays of equal layers as one array.

    A deep model has hundreds of small arrays, and each argument and result of a step costs the host microseconds. In
    the state of the rule, small arrays whose paths differ in numbers only are one array [layers, ...], under "stacked"
    and the path of the first of them.
    """

    def init(params: Any):
        return rule.init(_stack(params))

    def update(updates: Any, state: Any, params: Any = None):
        new, state = rule.update(_stack(updates), state)
        by_path: dict[Any, Any] = flatten_dict(new)
        leaves = {}
        for path, members in _stacks(updates).items():
            leaves |= zip(members, jnp.unstack(by_path[path]) if len(members) > 1 else [by_path[path]], strict=True)
        return jax.tree.unflatten(jax.tree.structure(updates), [leaves[place] for place in sorted(leaves)]), state

    return optax.GradientTransformation(init, update)


def _stack(tree: Any) -> dict[str, Any]:
    leaves = jax.tree.leaves(tree)

    def join(members: list[int]):
        return jnp.stack([leaves[i] for i in members]) if len(members) > 1 else leaves[members[0]]

    return unflatten_dict({path: join(members) for path, members in _stacks(tree).items()})


class _Stack(NamedTuple):
    """Arrays that `stacked` holds as one."""

    names: tuple[str, ...]  # path of the first of them
    members: list[int]  # their places in `jax.tree.leaves`


def _stacks(tree: Any) -> dict[tuple[str, ...], list[int]]:
    """The arrays in the state of `stacked`, by path: the places of their members in `jax.tree.leaves`."""
    found: dict[tuple, _Stack] = {}
    for place, (path, leaf) in enumerate(jax.tree.leaves_with_path(tree)):
        names = tuple(path_name(path).split("/"))
        small = leaf.size * leaf.dtype.itemsize <= STACKED_BYTES
        alike = (*("*" if name.isdigit() else name for name in names), leaf.shape, leaf.dtype) if small else names
        found.setdefault(alike, _Stack(names, [])).members.append(place)
    return {("stacked", *names) if len(members) > 1 else names: members for names, members in found.values()}


def is_trained(config: OptimizerConfig, params: Any) -> Any:
    """Tree of booleans: true for the parameters that `config.trainable` matches."""

    def trained(name: str):
        return not config.trainable or any(re.search(pattern, name) for pattern in config.trainable)

    return jax.tree.unflatten(jax.tree.structure(params), list(map(trained, parameter_names(params))))


def check_patterns(config: OptimizerConfig, params: Any) -> None:
    """Raise `ValueError` if a pattern of `trainable` or `lr_multipliers` matches no parameter."""
    names = parameter_names(params)
    fields = {"trainable": config.trainable, "lr_multipliers": [pattern for pattern, _ in config.factors]}
    for field, patterns in fields.items():
        for pattern in patterns:
            if not any(re.search(pattern, name) for name in names):
                raise ValueError(f"optimizer.{field}: {pattern!r} is in no parameter's path, such as {names[0]}")


def parameter_names(params: Any) -> list[str]:
    """The path of every array, such as "blocks/0/memory_layer/fusion/gate/bias", in the order of `jax.tree.leaves`."""
    return list(named_leaves(params))
