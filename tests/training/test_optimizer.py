"""Schedule, masks, multiplier and clipping of the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from memgpt_jax import parallel
from memgpt_jax.config.experiment import OptimizerConfig, ParallelConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.errors import RunError
from memgpt_jax.memory import MEMORIES, make_memory
from memgpt_jax.training.optimizer import (
    Groups,
    check_patterns,
    groups_of,
    learning_rate_schedule,
    make_optimizer,
    parameter_groups,
    parameter_names,
    stacked,
)
from memgpt_jax.training.start import Hooks, prepare
from tests.laws.models import random_params

PARAMS = {
    "layer": {
        "feed_forward": {"kernel": np.full((2, 3), 2.0, np.float32), "bias": np.full(3, 2.0, np.float32)},
        "gate": {"kernel": np.full((2, 1), 2.0, np.float32)},
        "norm": {"scale": np.full(2, 2.0, np.float32)},
    }
}


def tree_of(*names):
    """True for the parameters of PARAMS with these names."""
    leaves = [name in names for name in parameter_names(PARAMS)]
    return jax.tree.unflatten(jax.tree.structure(PARAMS), leaves)


GROUPS = Groups(gate=tree_of("layer/gate/kernel"), decay=tree_of("layer/feed_forward/kernel"))


def updates(gradients=1.0, **settings):
    """The first update from equal gradients."""
    optimizer = make_optimizer(OptimizerConfig(**({"warmup_steps": 0, "clip_norm": 0.0} | settings)), 10, GROUPS)
    gradients = jax.tree.map(lambda x: np.full(x.shape, gradients, x.dtype), PARAMS)

    @jax.jit
    def update(gradients, params):
        return optimizer.update(gradients, optimizer.init(params), params)[0]["layer"]

    with jax.numpy_dtype_promotion("standard"):
        return jax.device_get(update(gradients, PARAMS))


def test_schedule_warms_up_from_the_first_update_and_ends_at_its_share():
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=4, final_lr_fraction=0.1)
    rates = np.asarray(jax.jit(learning_rate_schedule(config, 20))(np.arange(20)))
    np.testing.assert_allclose(rates[:4], [0.5, 1.0, 1.5, 2.0], rtol=1e-6)
    cosine = 0.2 + 1.8 * (1 + np.cos(np.pi * np.arange(17) / 16)) / 2
    np.testing.assert_allclose(rates[3:], cosine, rtol=1e-5)


def test_schedule_without_warm_up_and_with_nothing_but_warm_up():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=0)
    assert learning_rate_schedule(config, 1000)(0) == pytest.approx(1.0, abs=1e-4)
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=100)
    assert learning_rate_schedule(config, 10)(9) == pytest.approx(0.1)


def test_weight_decay_reaches_kernels_alone():
    plain, decayed = updates(name="adam"), updates(name="adamw", weight_decay=0.5)
    rate = learning_rate_schedule(OptimizerConfig(warmup_steps=0), 10)(0)
    change = jax.tree.map(np.subtract, plain, decayed)
    np.testing.assert_allclose(change["feed_forward"]["kernel"], 0.5 * 2.0 * rate, rtol=1e-4)
    for leaf in (change["feed_forward"]["bias"], change["gate"]["kernel"], change["norm"]["scale"]):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_gates_move_faster_by_their_multiplier(name):
    step = updates(name=name, weight_decay=0.0, gate_lr_multiplier=5.0)
    np.testing.assert_allclose(step["gate"]["kernel"], 5 * step["norm"]["scale"][:, None], rtol=1e-6)


@pytest.mark.parametrize("trainable", [(), ("norm", "feed_forward")])
def test_the_first_pattern_that_matches_multiplies_the_learning_rate(trainable):
    plain = updates(trainable=trainable)
    step = updates(trainable=trainable, lr_multipliers=("bias$=0.5", "feed_forward=3", "gate=2"))
    factors = {"kernel": 3.0, "bias": 0.5}
    for name, factor in factors.items():
        np.testing.assert_allclose(step["feed_forward"][name], factor * plain["feed_forward"][name], rtol=1e-6)
    np.testing.assert_array_equal(step["norm"]["scale"], plain["norm"]["scale"])
    np.testing.assert_allclose(step["gate"]["kernel"], 2 * plain["gate"]["kernel"], rtol=1e-6)
    assert np.all(step["gate"]["kernel"] != 0) == (not trainable)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("memory", "'memory' is not PATTERN=FACTOR, such as memory_layer=10"),
        ("memory=fast", "'memory=fast' is not PATTERN=FACTOR"),
        ("memory=0", "the factor of 'memory' must be positive, got 0.0"),
        ("memory=inf", "the factor of 'memory' must be positive, got inf"),
        ("(=2", r"'\(' is not a regular expression"),
        ("=2", "a pattern is empty"),
    ],
)
def test_bad_multipliers_are_named(pattern, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(lr_multipliers=(pattern,))
    config = OptimizerConfig(lr_multipliers=("gate=2", "memory=2"))
    with pytest.raises(
        ValueError, match=r"optimizer.lr_multipliers: 'memory' is in no parameter's path, such as layer"
    ):
        check_patterns(config, PARAMS)


@pytest.mark.parametrize("field", ["trainable", "lr_multipliers"])
def test_a_run_is_refused_if_a_pattern_matches_nothing(make_config, field):
    config = make_config(optimizer={field: ("memery=2",)})
    with pytest.raises(RunError, match=rf"optimizer.{field}: 'memery.*' is in no parameter's path"):
        prepare(config, Hooks(None, None))


def test_gradients_are_clipped_by_global_norm():
    free = updates(gradients=3.0, name="sgd", gate_lr_multiplier=1.0, clip_norm=0.0)
    clipped = updates(gradients=3.0, name="sgd", gate_lr_multiplier=1.0, clip_norm=1.0)
    norm = 3.0 * np.sqrt(sum(leaf.size for leaf in jax.tree.leaves(PARAMS)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b * norm, rtol=1e-5), free, clipped)
    small = updates(gradients=1e-3, name="sgd", gate_lr_multiplier=1.0, clip_norm=1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / 3000, rtol=1e-5), small, free)


def test_momentum_of_sgd_is_b1():
    optimizer = make_optimizer(OptimizerConfig(name="sgd", b1=0.5, warmup_steps=0, clip_norm=0.0), 1_000_000, GROUPS)
    gradients, state = jax.tree.map(np.ones_like, PARAMS), jax.jit(optimizer.init)(PARAMS)
    update = jax.jit(optimizer.update)
    first, state = update(gradients, state, PARAMS)
    second, state = update(gradients, state, PARAMS)
    first, second = (np.asarray(step["layer"]["norm"]["scale"]) for step in (first, second))
    np.testing.assert_allclose(second, 1.5 * first, rtol=1e-5)


def test_small_arrays_of_like_layers_share_an_array_of_the_state_and_updates_stay_the_same():
    """Twelve layers, of which one is wider, with large kernels that stay apart."""
    random = np.random.default_rng(0)

    def drawn(*shape):
        return random.normal(size=shape).astype(np.float32)

    def tree():
        blocks = {str(i): {"kernel": drawn(129, 128), "bias": drawn(7 if i == 4 else 5)} for i in range(12)}
        return {"blocks": blocks, "embedding": drawn(3, 2)}

    plain, params = optax.scale_by_adam(), tree()
    joined = stacked(plain)
    state, plain_state = jax.jit(joined.init)(params), jax.jit(plain.init)(params)
    update, plain_update = jax.jit(joined.update), jax.jit(plain.update)
    found = {name: leaf.shape for name, leaf in zip(parameter_names(state.mu), jax.tree.leaves(state.mu), strict=True)}
    kernels = {f"blocks/{i}/kernel": (129, 128) for i in range(12)}
    assert found == kernels | {"stacked/blocks/0/bias": (11, 5), "blocks/4/bias": (7,), "embedding": (3, 2)}
    for _ in range(2):
        gradients = tree()
        with jax.numpy_dtype_promotion("standard"):
            new, state = update(gradients, state, params)
            expected, plain_state = plain_update(gradients, plain_state, params)
        jax.tree.map(np.testing.assert_array_equal, new, expected)


def test_stacked_states_are_split_as_their_parameters_are():
    kernels = {"blocks": {str(i): {"input": {"kernel": np.ones((4, 6), np.float32)}} for i in range(3)}}
    mesh = parallel.make_mesh(ParallelConfig(data=1))
    split = parallel.parameter_shardings({"mu": stacked(optax.trace(0.9)).init(kernels).trace}, mesh)
    assert [leaf.spec for leaf in jax.tree.leaves(split)] == [PartitionSpec(None, "fsdp", "tensor")]


def names_in(tree):
    """The names of the parameters that are true in a tree of booleans."""
    return {name for name, chosen in zip(parameter_names(tree), jax.tree.leaves(tree), strict=True) if chosen}


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_masks_on_every_parameter_of_a_model(activation):
    memory = KVMemoryConfig(memory_size=8, initial_entries=2, select="pool", select_size=4, recency_bias=True)
    config = ModelConfig(
        d_model=16,
        num_layers=1,
        segment_length=8,
        memory=memory,
        activation=activation,
        norm="layernorm",
        position="learned",
        tie_embeddings=False,
    )
    params = jax.eval_shape(lambda: random_params(config))
    groups = parameter_groups(config)
    assert jax.tree.structure(groups.gate) == jax.tree.structure(groups.decay) == jax.tree.structure(params)
    names, gates, decayed = parameter_names(params), names_in(groups.gate), names_in(groups.decay)

    assert {name.split("/")[-2:-1][0] for name in gates} == {"gate", "write_gate"}
    assert {name.split("/")[-1] for name in gates} == {"kernel", "bias"}
    assert {"embedding", "position_embedding", "output/kernel", "blocks/0/feed_forward/input/kernel"} < decayed
    never = ("bias", "scale", "norm", "temperature", "initial", "null", "queries", "gate")
    assert not [name for name in decayed if any(word in name for word in never)]
    assert [name for name in set(names) - decayed if not any(word in name for word in never)] == []


GATES = {
    "none": "",
    "kv": "write_gate/bias write_gate/kernel",
    "knn": "store_gate",
    "ntm": "",
    "dnc": "",
    "memn2n": "",
    "tokens": "update_gate/bias update_gate/kernel",
    "associative": "write_gate/bias write_gate/kernel forget_gate/bias forget_gate/kernel",
    "compressive": "",
    "titans": "rate_gate/bias rate_gate/kernel inertia_gate/bias inertia_gate/kernel forget_gate/bias "
    "forget_gate/kernel",
}
DECAYED = {
    "none": "",
    "kv": "query/kernel key/kernel value/kernel output/kernel conv/kernel",
    "knn": "query/kernel key/kernel value/kernel output/kernel conv/kernel",
    "ntm": "interface_vector/kernel interface_previous/kernel output/kernel",
    "dnc": "interface_vector/kernel interface_previous/kernel output/kernel",
    "memn2n": "query/kernel entry/kernel output/kernel conv/kernel",
    "tokens": "query/kernel key/kernel value/kernel output/kernel conv/kernel token_key/kernel token_value/kernel "
    "state_query/kernel state_key/kernel state_value/kernel update/kernel",
    "associative": "query/kernel key/kernel value/kernel output/kernel conv/kernel",
    "compressive": "query/kernel key/kernel value/kernel output/kernel conv/kernel compress_keys_kernel "
    "compress_values_kernel source_embedding",
    "titans": "query/kernel key/kernel value/kernel output/kernel conv/kernel",
}
PLAIN = {
    "none": "",
    "kv": "key/bias value/bias log_temperature null_key initial_keys initial_values recency_bias",
    "knn": "key/bias value/bias log_temperature",
    "ntm": "interface_vector/bias",
    "dnc": "interface_vector/bias",
    "memn2n": "maps age_encoding update log_temperature null_key",
    "tokens": "update/bias log_temperature write_log_temperature initial_states state_ids",
    "associative": "key/bias value/bias initial_keys initial_values",
    "compressive": "key/bias value/bias log_temperature null_key",
    "titans": "key/bias value/bias initial_weights/0 initial_weights/1",
}
SETTINGS = {
    "kv": {"initial_entries": 2, "recency_bias": True},
    "memn2n": {"tying": "layerwise"},
    "associative": {"initial_entries": 2, "forget": True},
}


@pytest.mark.parametrize("name", GATES)
def test_the_group_of_every_parameter_of_every_mechanism(name):
    """Gates, parameters with weight decay, and the others; a mechanism of a user has no row, and no test here."""
    config = MEMORIES[name].config(**SETTINGS.get(name, {}))
    shapes = {"d_model": 8, "segment_length": 4, "dtype": "float32"}
    groups = groups_of(nnx.eval_shape(lambda: make_memory(config, rngs=nnx.Rngs(0), **shapes)))
    gates, decayed = names_in(groups.gate), names_in(groups.decay)
    assert gates == set(GATES[name].split()) and decayed == set(DECAYED[name].split())
    assert set(parameter_names(groups.gate)) - gates - decayed == set(PLAIN[name].split())


def test_a_name_does_not_make_a_gate_or_decay():
    class Gated(nnx.Module):
        def __init__(self):
            self.gate = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
            self.kernel = nnx.Param(jnp.ones((2, 2)))

    class Declared(Gated):
        gates, decayed = ("gate",), ("kernel",)

    groups = groups_of(Gated())
    assert names_in(groups.gate) == set() and names_in(groups.decay) == {"gate/kernel"}
    groups = groups_of(Declared())
    assert names_in(groups.gate) == {"gate/kernel", "gate/bias"} and names_in(groups.decay) == {"kernel"}


@pytest.mark.parametrize("field", ["gates", "decayed"])
def test_a_declared_name_is_an_attribute_in_some_configuration(field):
    class Optional(nnx.Module):
        def __init__(self, *, gated):
            self.gate = nnx.Param(jnp.ones(2)) if gated else None
            if gated:
                self.other_gate = nnx.Param(jnp.ones(2))

    declared = type("Declared", (Optional,), {field: ("gate", "other_gate")})
    for gated in (True, False):
        groups_of(declared(gated=gated))
    misspelt = type("Misspelt", (Optional,), {field: ("gate", "ohter_gate")})
    with pytest.raises(ValueError, match=rf"Misspelt.{field}: 'ohter_gate' is no attribute of the class"):
        groups_of(misspelt(gated=True))
