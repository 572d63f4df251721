"""What does not fit a model is refused by name on the host, and gives NaN inside of `jit`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax import models
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.models.arguments import check_tokens
from tests.laws.memories import difference
from tests.laws.models import BATCH, build, random_params, stream_inputs, tiny

SMALL = {"vocab_size": 32, "d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 12, "segment_length": 4}
SMALL |= {"memory": KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4)}
ENCODER = EncoderConfig(**SMALL, heads=())
CONFIGS = {
    "decoder": ModelConfig(**SMALL, window_size=6),
    "no memory": ModelConfig(**SMALL | {"memory": NoMemoryConfig()}, window_size=6),
    "encoder": EncoderConfig(**SMALL, token_types=2),
    "pair": Seq2SeqConfig(encoder=ENCODER, decoder=ModelConfig(**SMALL, source_length=12, window_size=6)),
    "xlnet": XLNetConfig(**SMALL),
}
LENGTH = 6


@functools.cache
def model_of(name):
    return models.from_params(CONFIGS[name], random_params(CONFIGS[name]))


def call(name, tokens, valid=None, state=None, reset=None):
    """Hidden states or logits [B, L, ...] of a model; of the pair, its decoder's."""
    model = model_of(name)
    return model(tokens, model.init_state(BATCH) if state is None else state, reset, valid)[0]


compiled = jax.jit(call, static_argnums=0)


def tokens_of(batch=BATCH):
    return np.random.default_rng(0).integers(32, size=(batch, LENGTH)).astype(np.int32)


each = pytest.mark.parametrize("name", CONFIGS)
MASKS = {"left": [0, 0, 1, 1, 1, 1], "first": [0, 1, 1, 1, 1, 1], "gap": [1, 1, 0, 1, 1, 1], "last": [1, 0, 0, 0, 0, 1]}


@each
@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(mask, marks=[pytest.mark.slow] * (name in ("first", "last")), id=name)
        for name, mask in MASKS.items()
    ],
)
def test_padding_on_the_left_or_inside_is_refused(name, mask):
    valid = np.array([[1] * LENGTH, mask], bool)
    for flags in (valid, jnp.asarray(valid)):
        with pytest.raises(ValueError, match=r"valid: rows \[1\] have padding in front of tokens. Pad on the right"):
            call(name, tokens_of(), flags)
    if mask == MASKS["left"]:
        out = np.asarray(compiled(name, tokens_of(), valid))
        assert np.isnan(out[1]).all() and np.isfinite(out[0]).all()


def test_padding_of_a_source_and_of_a_layer():
    valid = np.array([[1] * LENGTH, MASKS["left"]], bool)
    pair, layer = model_of("pair"), models.MemoryLayer(SMALL["memory"], d_model=8, segment_length=4, rngs=nnx.Rngs(0))
    h, targets = jnp.ones((BATCH, LENGTH, 8)), tokens_of()

    def score(valid):
        options = {"source": targets, "source_valid": valid}
        scores, _ = pair.score(targets, {"tokens": targets}, pair.init_state(BATCH), **options)
        return scores["tokens"].losses

    def read(valid):
        return pair.read_source(targets, pair.init_state(BATCH), valid=valid)

    def run(valid):
        return layer(h, layer.init_state(BATCH), valid=valid)[0]

    for function in (read, score, run):
        with pytest.raises(ValueError, match=r"valid: rows \[1\] have padding in front"):
            function(valid)
    for function in (score, run):
        out = np.asarray(jax.jit(function)(valid))
        assert np.isnan(out[1]).all() and np.isfinite(out[0]).all()


@each
@pytest.mark.parametrize("wrong", [32, -1, -100, 2**31 - 1])
def test_ids_out_of_the_vocabulary(name, wrong):
    tokens = tokens_of()
    tokens[1, 3] = wrong
    with pytest.raises(ValueError, match="tokens must be from 0 to 31, got"):
        call(name, tokens)
    out = np.asarray(compiled(name, tokens, np.ones(tokens.shape, bool)))
    assert np.isnan(out[1, 3]).all() and np.isfinite(out[0]).all()
    valid = np.arange(LENGTH)[None] < np.array([[LENGTH], [3]])  # what pads may be any number
    check_tokens(tokens, 32, valid)
    assert np.isfinite(compiled(name, tokens, valid)[1, :3]).all()


@each
@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int64, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (np.int8, np.uint32))]
)
def test_every_type_of_integer(name, dtype):
    tokens = tokens_of().astype(dtype)
    check_tokens(tokens, 32)
    everywhere = np.ones(tokens.shape, bool)
    assert difference(compiled(name, tokens, everywhere), compiled(name, tokens_of(), everywhere)) == 0


def test_a_vocabulary_beyond_the_type_of_the_ids():
    """int8 counts to 127: neither the lookup of a token nor that of a target depends on it."""
    config = ModelConfig(**SMALL | {"vocab_size": 300}, window_size=6)
    model = models.from_params(config, random_params(config))

    @jax.jit
    def score(tokens):
        scores, _ = model.score(tokens, {"tokens": tokens}, model.init_state(BATCH))
        return scores["tokens"].losses

    assert difference(score(tokens_of().astype(np.int8)), score(tokens_of())) == 0


LIKE_TOKENS = {
    "bool": np.zeros((BATCH, LENGTH), bool),
    "float": np.zeros((BATCH, LENGTH), np.float32),
    "length": np.zeros((BATCH, 2), np.int32),
    "rank": np.zeros(LENGTH, np.int32),
    "list": [[0] * LENGTH] * BATCH,
}


@pytest.mark.parametrize("name, argument", [("encoder", "token_types"), ("xlnet", "token_types"), ("xlnet", "order")])
@pytest.mark.parametrize("numbers", LIKE_TOKENS.values(), ids=LIKE_TOKENS)
def test_numbers_beside_tokens_of_another_kind(name, argument, numbers):
    model = model_of(name)
    with pytest.raises(ValueError, match=rf"{argument} must be integers\[2, {LENGTH}\] like tokens, got"):
        model.hidden(tokens_of(), model.init_state(BATCH), **{argument: numbers})


@pytest.mark.parametrize("wrong", [2, -1, 300])
def test_token_types_that_the_encoder_has_not(wrong):
    types = np.zeros((BATCH, LENGTH), np.int64)
    types[1, 3] = wrong

    def run(model, types):
        return model.hidden(tokens_of(), model.init_state(BATCH), token_types=types)[0]

    with pytest.raises(ValueError, match="token_types must be from 0 to 1, got"):
        run(model_of("encoder"), types)
    out = np.asarray(jax.jit(functools.partial(run, model_of("encoder")))(types))
    assert np.isnan(out[1, 3]).all() and np.isfinite(out[0]).all()
    config = EncoderConfig(**SMALL)
    with pytest.raises(ValueError, match="token_types: this model has no token types"):
        run(models.from_params(config, random_params(config)), types)


def test_flags_of_one_row_that_are_no_bools():
    model = model_of("decoder")
    for flags in (np.ones((1, LENGTH), np.int64), np.full((1, LENGTH), 7.0)):
        with pytest.raises(ValueError, match=rf"valid must be bool\[1, {LENGTH}\] like tokens, got"):
            model(tokens_of(1), model.init_state(1), valid=flags)


WRONG = {
    "list": [[1, 2]],
    "float": np.zeros((BATCH, 3), np.float32),
    "bool": np.zeros((BATCH, 3), bool),
    "rank 1": np.zeros(3, np.int32),
    "rank 3": np.zeros((BATCH, 3, 1), np.int32),
    "no tokens": np.zeros((BATCH, 0), np.int32),
}


@each
@pytest.mark.parametrize("tokens", WRONG.values(), ids=WRONG)
def test_tokens_of_another_kind(name, tokens):
    with pytest.raises(ValueError, match=r"tokens must be integers \[B, L\] with L >= 1, got"):
        call(name, tokens)


@each
@pytest.mark.parametrize("flag", ["reset", "valid"])
def test_flags_of_another_kind(name, flag):
    for flags in ([[True] * LENGTH] * 2, np.ones((BATCH, LENGTH), np.int32), np.ones((BATCH, 5), bool), np.array(True)):
        with pytest.raises(ValueError, match=rf"{flag} must be bool\[2, {LENGTH}\] like tokens, got"):
            call(name, tokens_of(), **{flag: flags})


@each
def test_states_of_others(name):
    with pytest.raises(ValueError, match="state has 3 rows, tokens have 2"):
        call(name, tokens_of(), state=model_of(name).init_state(3))

    def shapes(name):
        return str(jax.eval_shape(lambda: model_of(name).init_state(BATCH)))

    for other in CONFIGS:
        if shapes(other) != shapes(name):  # those of an encoder and of an XLNet are equal
            with pytest.raises(ValueError, match="state "):
                call(name, tokens_of(), state=model_of(other).init_state(BATCH))
    widened = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, model_of(name).init_state(2)
    )
    if jax.tree.leaves(widened):
        with pytest.raises(ValueError, match=r"state does not fit the config of this model: state.*bfloat16.*float32"):
            call(name, tokens_of(), state=widened)


@pytest.mark.parametrize(
    "name", ["decoder", "pair", *(pytest.param(name, marks=pytest.mark.slow) for name in ("encoder", "xlnet"))]
)
@pytest.mark.parametrize(
    "targets", [np.zeros((BATCH, 5), np.int32), np.zeros((BATCH, LENGTH), np.float32), np.full((BATCH, LENGTH), -100)]
)
def test_targets_that_do_not_fit(name, targets):
    model = model_of(name)
    more = {"source": tokens_of()} if name == "pair" else {}

    def score(targets):  # traced, which is enough to refuse arrays of the host
        jax.eval_shape(lambda: model.score(tokens_of(), targets, model.init_state(BATCH), **more))

    head = "masked" if name == "encoder" else "tokens"
    with pytest.raises(ValueError, match=r"targets\['\w+'\] must be (integers\[2, 6\] like tokens|from 0 to 31), got"):
        score({head: targets})
    with pytest.raises(ValueError, match=f"targets: the model has no head 'labels'; valid: {head}"):
        score({"labels": tokens_of()})
    with pytest.raises(ValueError, match=r"targets must be a dictionary \{head: ids\}, got ndarray"):
        score(tokens_of())


def test_learned_positions_end():
    model = build(tiny(position="learned", num_positions=9))
    tokens, _ = stream_inputs(0, model.config, 12)

    def first(number):  # padding has no position
        return np.broadcast_to(np.arange(12) < number, tokens.shape)

    whole, state = model(tokens)  # inside of jit
    assert np.isnan(whole[:, 9:]).all() and np.isfinite(model(tokens, valid=first(9))[0][:, :9]).all()
    reset = np.zeros((BATCH, 12), bool)
    reset[:, 5] = True  # the second document is short enough
    assert np.isfinite(model(tokens, reset=reset)[0]).all()
    eager = functools.partial(models.functional(model.config).apply, model.params)
    _, state = model(tokens, valid=first(8))
    with pytest.raises(
        ValueError, match=r"position 9 of a document exceeds the learned positions 0 to 8 \(num_positions=9\)"
    ):
        eager(tokens[:, 8:10], state)
    valid = np.arange(2)[None] < np.ones((BATCH, 1))  # what pads has no position
    assert np.isfinite(model(tokens[:, 8:10], state, valid=valid)[0][:, 0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("position", [pytest.param("rotary", marks=pytest.mark.slow), "learned"])
def test_parameters_may_be_numpy_arrays_inside_jit(position):
    """As a checkpoint read by other means gives them: closed over by a jitted function, tokens traced or not."""
    config = ModelConfig(vocab_size=9, d_model=8, num_layers=1, num_heads=1, position=position, num_positions=16)
    params = jax.device_get(random_params(config))
    tokens, state = np.ones((1, 4), np.int32), models.functional(config).init_state(1)
    expected, _ = jax.jit(models.functional(config).apply)(params, tokens, state)
    found, _ = jax.jit(lambda tokens, state: models.functional(config).apply(params, tokens, state))(tokens, state)
    constant, _ = jax.jit(lambda state: models.functional(config).apply(params, tokens, state))(state)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(constant, expected, atol=1e-6)
