"""Encoder-decoders: the decoder streams with its source, both stacks remember, and nothing leaks."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax import models
from memgpt_jax.config.features import FramesConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, Seq2SeqConfig
from memgpt_jax.generation import generate
from tests.laws.memories import difference
from tests.laws.models import random_params, tiny

LENGTH, SOURCE = 14, 11
RELATIVE = {"position": "relative", "relative_buckets": 6, "relative_max_distance": 7}


def encoder_of(decoder, **changes):
    """An encoder like a decoder."""
    names = {field.name for field in dataclasses.fields(EncoderConfig)} & {*vars(decoder)}
    return EncoderConfig(**{name: getattr(decoder, name) for name in names} | {"heads": ()} | changes)


def pair(memory=None, encoder=None, **changes):
    decoder = tiny(memory, num_layers=2, source_length=SOURCE, **RELATIVE | changes)
    return Seq2SeqConfig(encoder=encoder_of(decoder, num_layers=1, **encoder or {}), decoder=decoder)


SMALL = {"memory": KVMemoryConfig(memory_size=3, head_dim=4), "segment_length": 3}
CONFIGS = {
    "memory": pair(encoder=SMALL, tie_embeddings=False, num_kv_heads=1),
    "plain": pair(NoMemoryConfig(), attention_scale=1.0, logit_scale=0.5, activation="relu"),
    "parallel": pair(encoder={"norm_position": "parallel"}, norm_position="parallel"),
    "post": pair(NoMemoryConfig(), norm_position="post", norm="layernorm", position="learned"),
}


@functools.lru_cache
def params_of(config):
    params = random_params(config)
    return jax.tree.map(lambda x: 1.5 * np.asarray(x), params)


@functools.partial(jax.jit, static_argnums=0)
def read_source(config, params, source, state, valid):
    return models.from_params(config, params).read_source(source, state, valid=valid)


@functools.partial(jax.jit, static_argnums=0)
def call(config, params, tokens, state, reset=None, valid=None):
    return models.functional(config).apply(params, tokens, state, reset, valid)


def inputs(config, length=LENGTH):
    rng = np.random.default_rng(1)
    source, tokens = (rng.integers(0, config.decoder.vocab_size, (2, n)).astype(np.int32) for n in (SOURCE - 2, length))
    valid = np.ones(source.shape, bool)
    valid[1, -4:] = False
    return source, valid, tokens


def state_of(config, **changes):
    source, valid, _ = inputs(config)
    arguments = {"source": source, "state": models.functional(config).init_state(2), "valid": valid} | changes
    return read_source(config, params_of(config), **arguments)


each = pytest.mark.parametrize(
    "config",
    [pytest.param(CONFIGS[name], id=name, marks=() if name == "memory" else pytest.mark.slow) for name in CONFIGS],
)


@each
def test_any_cut_gives_the_same_logits(config):
    _, _, tokens = inputs(config)
    whole, end = call(config, params_of(config), tokens, state_of(config))
    for sizes in ([1] * LENGTH, [6, 1, 6, 1]):
        state, logits = state_of(config), []
        for part in np.split(tokens, np.cumsum(sizes)[:-1], axis=1):
            out, state = call(config, params_of(config), part, state)
            logits.append(out)
        assert difference(whole, np.concatenate(logits, axis=1)) < 1e-4
        assert difference([layer.source for layer in end.decoder.layers], [x.source for x in state.decoder.layers]) == 0


@each
def test_the_source_is_read_and_its_padding_is_not(config):
    source, valid, tokens = inputs(config)
    logits, _ = call(config, params_of(config), tokens, state_of(config))
    padded = np.where(valid, source, 3).astype(np.int32)
    same, _ = call(config, params_of(config), tokens, state_of(config, source=padded))
    assert difference(logits, same) == 0
    for row, place in ((0, SOURCE - 3), (1, 0)):
        other = source.copy()
        other[row, place] = (other[row, place] + 7) % config.decoder.vocab_size
        changed, _ = call(config, params_of(config), tokens, state_of(config, source=other))
        gap = np.abs(np.asarray(changed - logits)).max(axis=(1, 2))
        assert gap[row] > 1e-4 and gap[1 - row] == 0


@each
def test_a_shorter_source_needs_no_padding(config):
    source, _, tokens = inputs(config)
    short = source[:, :5]
    valid = np.broadcast_to(np.arange(source.shape[1]) < 5, source.shape)
    one, _ = call(config, params_of(config), tokens, state_of(config, source=short, valid=np.ones(short.shape, bool)))
    other, _ = call(config, params_of(config), tokens, state_of(config, valid=valid))
    assert difference(one, other) < 1e-5


@pytest.mark.slow
@each
def test_training_on_padded_sources_is_training_on_shorter_ones(config):
    source, _, tokens = inputs(config)
    source_valid = np.broadcast_to(np.arange(source.shape[1]) < 5, source.shape)

    model = models.from_params(config, params_of(config))

    @jax.jit
    def losses(source, source_valid):
        options = {"source": source, "source_valid": source_valid}
        scores, _ = model.score(tokens, {"tokens": tokens}, model.init_state(2), **options)
        return scores["tokens"].losses

    short, padded = losses(source[:, :5], np.ones((2, 5), bool)), losses(source, source_valid)
    assert difference(short, padded) < 1e-5 < 1e-3 < difference(short, losses(source, np.ones(source.shape, bool)))
    with pytest.raises(ValueError, match="source_reset, source_valid and source_features need a source"):
        model.score(tokens, {"tokens": tokens}, model.init_state(2), source_valid=source_valid)


@pytest.mark.slow
def test_without_a_source_the_decoder_is_one_without_cross_attention():
    config = CONFIGS["memory"]
    _, _, tokens = inputs(config)
    params = params_of(config)["decoder"]
    plain = dataclasses.replace(config.decoder, source_length=None)
    kept = jax.tree.map_with_path(
        lambda path, _: functools.reduce(lambda tree, part: tree[part.key], path, params),
        models.functional(plain).param_shapes(),
    )
    with_it, _ = call(config.decoder, params, tokens, models.functional(config.decoder).init_state(2))
    without, _ = call(plain, kept, tokens, models.functional(plain).init_state(2))
    assert difference(with_it, without) < 1e-5


def test_a_document_ends_and_the_source_stays():
    config = CONFIGS["plain"]
    _, _, tokens = inputs(config)
    reset = np.zeros(tokens.shape, bool)
    reset[:, 6] = True
    logits, _ = call(config, params_of(config), tokens, state_of(config), reset)
    rest, _ = call(config, params_of(config), tokens[:, 6:], state_of(config))
    assert difference(logits[:, 6:], rest) < 1e-5


def test_both_stacks_remember():
    """A call later, the encoder still knows an earlier source, and the decoder an earlier target."""
    config = CONFIGS["memory"]
    source, valid, tokens = inputs(config)
    first, later = source, source[:, ::-1][:, :5].copy()
    everywhere = np.ones(first.shape, bool)
    results = []
    for change in (0, 5):
        state = state_of(config, source=(first + change) % 32, valid=everywhere)
        state = state_of(config, source=later, state=state, valid=everywhere[:, :5])
        results.append(call(config, params_of(config), tokens, state)[0])
    assert difference(*results) > 1e-4
    results = []
    for change in (0, 5):
        before = (tokens[:, ::-1] + change) % 32
        _, state = call(config, params_of(config), before, state_of(config))
        results.append(call(config, params_of(config), tokens, state)[0][:, -1])
    assert difference(*results) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["memory", pytest.param("plain", marks=pytest.mark.slow)])
def test_gradients_reach_every_parameter_through_the_source(name):
    config = CONFIGS[name]
    source, valid, tokens = inputs(config)

    def loss(params, config=config):
        model = models.from_params(config, params)
        state = model.read_source(source, model.init_state(2), valid=valid)
        if name == "memory":  # that the encoder wrote in the call before
            state = model.read_source(source, state, valid=valid)
        scores, _ = model.score(tokens, {"tokens": np.roll(tokens, -1, axis=1)}, state)
        return jnp.mean(scores["tokens"].losses)

    value, gradients = jax.jit(jax.value_and_grad(loss))(params_of(config))
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), jax.tree_util.keystr(path)
    if name == "plain":
        decoder = dataclasses.replace(config.decoder, scan_layers=True, remat="block")
        same = Seq2SeqConfig(encoder=dataclasses.replace(config.encoder, remat="dots"), decoder=decoder)
        again = jax.jit(jax.value_and_grad(functools.partial(loss, config=same)))(params_of(config))
        assert difference((value, gradients), again) < 1e-5


@pytest.mark.slow
def test_the_decoder_generates_from_its_source():
    """Greedy, each token is the best of all that was read again from the start; beams find no worse a text."""
    config = CONFIGS["memory"]
    model = models.from_params(config, params_of(config))
    state = state_of(config)
    got = generate(model, [[0], [0]], state=state, max_new_tokens=LENGTH).ids
    logits, _ = call(config, params_of(config), got[:, :-1], state)
    np.testing.assert_array_equal(got[:, 1:], np.argmax(logits, axis=-1))
    pure = (config.decoder, params_of(config)["decoder"])
    short = generate(pure, [[0], [0]], state=state.decoder, max_new_tokens=5).ids
    np.testing.assert_array_equal(short, got[:, :6])

    def log_p(text):
        log_p = jax.nn.log_softmax(call(config, params_of(config), text[:, :-1], state)[0])
        return np.take_along_axis(np.asarray(log_p), text[:, 1:, None], axis=2).sum(axis=(1, 2))

    end = int(got[0, 3])
    model.origin = types.SimpleNamespace(stop_ids=(end,))
    unended = generate(model, [[0], [0]], state=state, max_new_tokens=LENGTH, ignore_eos=True).ids
    np.testing.assert_array_equal(unended, got)
    ended = generate(model, [[0], [0]], state=state, max_new_tokens=LENGTH, stop=int(got[0, 5])).ids
    assert ended[0].tolist()[: got[0].tolist().index(end) + 1] == got[0].tolist()[: got[0].tolist().index(end) + 1]
    assert set(ended[0].tolist()[got[0].tolist().index(end) :]) == {end}  # and padding
    for stop in (np.int32(got[0, 5]), np.array(got[0, 5]), [int(got[0, 5])]):
        same = generate(model, [[0], [0]], state=state, max_new_tokens=LENGTH, stop=stop).ids
        np.testing.assert_array_equal(same, ended)

    beams = generate(model.decoder, [[0], [0]], state=state.decoder, max_new_tokens=LENGTH, num_beams=16).ids
    assert np.all(log_p(beams) >= log_p(got) - 1e-4)


def test_generating_without_a_source_is_refused():
    config = CONFIGS["plain"]
    model = models.from_params(config, params_of(config))
    row = "rows \\[0, 1\\] of the state have none: give state=model.read_source"
    without, half = model.init_state(2), jax.tree.map(lambda x: x.at[1].set(jnp.zeros_like(x[1])), state_of(config))
    for given, state in ((model, None), (model, without), (model.decoder, None), (model.decoder, without.decoder)):
        with pytest.raises(ValueError, match=row):
            generate(given, [[0], [0]], state=state, max_new_tokens=1)
    with pytest.raises(ValueError, match="rows \\[1\\] of the state have none"):
        generate(model, [[0], [0]], state=half, max_new_tokens=1)


@pytest.mark.slow
def test_answers_continue_from_the_state_of_both_stacks():
    config = CONFIGS["memory"]
    model, state = models.from_params(config, params_of(config)), state_of(config)
    drawn = generate(model, [[0], [0]], state=state, max_new_tokens=4, temperature=1.0, num_return_sequences=2)
    expected = jax.tree.map(lambda x: np.repeat(x, 2, axis=0), state.encoder)
    jax.tree.map(np.testing.assert_array_equal, drawn.state.encoder, expected)
    whole = generate(model, [[0], [0]], state=state, max_new_tokens=8)
    first = generate(model, [[0], [0]], state=state, max_new_tokens=4)
    rest = generate(model, first.ids[:, -1:], state=first.state, max_new_tokens=4)
    np.testing.assert_array_equal(np.concatenate([first.ids, rest.ids[:, 1:]], axis=1), whole.ids)


def test_dropout_acts_in_the_encoder_and_in_cross_attention():
    config = CONFIGS["plain"]

    def drop(part):
        return dataclasses.replace(part, dropout=0.5)

    config = Seq2SeqConfig(encoder=drop(config.encoder), decoder=drop(config.decoder))
    source, _, tokens = inputs(config)
    model = models.from_params(config, params_of(CONFIGS["plain"]))
    read = jax.jit(lambda key: model.read_source(source, model.init_state(2), dropout_key=key).decoder.layers[0].source)
    assert difference(read(jax.random.key(0)).keys, read(jax.random.key(1)).keys) > 1e-2
    state = state_of(CONFIGS["plain"])
    answer = jax.jit(lambda key: model(tokens, state, dropout_key=key)[0])
    assert difference(answer(jax.random.key(0)), answer(jax.random.key(1))) > 1e-2


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda c: dataclasses.replace(c, encoder=encoder_of(c.decoder, vocab_size=9)), "encoder.vocab_size=9 must be"),
        (lambda c: dataclasses.replace(c, encoder=encoder_of(c.decoder, heads=("masked",))), r"heads must be \(\)"),
        (lambda c: dataclasses.replace(c, decoder=tiny(**RELATIVE)), "decoder.source_length must be given"),
        (lambda c: tiny(**RELATIVE | {"relative_buckets": 3}), "relative_buckets=3 must be at least 4"),
        (lambda c: tiny(**RELATIVE | {"relative_max_distance": 3}), "below twice relative_max_distance=3"),
        (
            lambda c: tiny(**RELATIVE, attention_implementation="pallas"),
            "'pallas' does not support position='relative'",
        ),
        (
            lambda c: state_of(c, source=np.zeros((2, 12), np.int32), valid=np.ones((2, 12), bool)),
            "up to source_length",
        ),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(CONFIGS["plain"])


FEATURES = FramesConfig(num_mels=3)


def test_features_are_a_source_and_their_padding_is_not():
    """Nor is what features hold there, NaN included."""
    config = pair(NoMemoryConfig(), encoder={"features": FEATURES, "position": "sinusoidal"})
    assert config.inputs[-1] == "source_features" and CONFIGS["plain"].inputs[-1] == "source_valid"
    params, (_, _, tokens) = params_of(config), inputs(config)
    model = models.from_params(config, params)
    features = np.random.default_rng(2).normal(size=(2, SOURCE, FEATURES.size)).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=2)
    def losses(features, number, length):
        valid = jnp.broadcast_to(jnp.arange(length) < number, (2, length))
        options = {"source": jnp.zeros((2, length), int), "source_valid": valid, "source_features": features}
        scores, state = model.score(tokens, {"tokens": tokens}, model.init_state(2), **options)
        return scores["tokens"].losses, state.decoder.layers[0].source.keys

    def read(features, number, length=SOURCE):
        return losses(features[:, :length], number, length)[0]

    short, noise = features.copy(), features.copy()
    noise[:, 5:] = np.nan
    np.testing.assert_array_equal(read(short, 5), read(noise, 5))
    assert difference(read(short, 5), read(short, 5, 5)) < 1e-5 < 1e-3 < difference(read(short, 5), read(short, 6))
    noise[1, 2] += 1
    changed = np.abs(np.asarray(read(short, 5) - read(noise, 5))).max(axis=1)
    assert changed[0] == 0 and changed[1] > 1e-4

    with pytest.raises(ValueError, match="features are missing: tokens of id 0 need features"):
        model.read_source(np.zeros((2, 5), np.int32))
    with pytest.raises(ValueError, match="features: this model has none"):
        model_without = models.from_params(CONFIGS["plain"], params_of(CONFIGS["plain"]))
        model_without.read_source(np.zeros((2, 5), np.int32), features=features[:, :5])
