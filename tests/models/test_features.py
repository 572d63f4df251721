"""Raw features: convolutions against loops, streaming, padding, documents, and refusals."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.config.features import FramesConfig, PatchesConfig, SensesConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig
from memgpt_jax.data.pictures import patches
from memgpt_jax.models import from_params
from memgpt_jax.models.frames import Frames, centered
from memgpt_jax.models.heads import LabelHeadConfig
from memgpt_jax.ops.pools import POOLS
from tests.laws.models import random_params, state_difference

BANDS, WIDTH, LENGTH = 3, 8, 12
MEMORY = KVMemoryConfig(memory_size=6, num_heads=2, head_dim=4)
SIZES = {"vocab_size": 3, "d_model": WIDTH, "num_layers": 1, "num_heads": 2, "d_ff": 12, "segment_length": 4}
FRAMES = FramesConfig(num_mels=BANDS)
CAUSAL = ModelConfig(**SIZES, window_size=6, memory=MEMORY, features=FRAMES)
ENCODER = EncoderConfig(**SIZES, memory=MEMORY, features=FRAMES, heads=())
PICTURES = PatchesConfig(height=4, width=8, patch_size=4, channels=2, stem=(5, 6, 7))


def model_of(config):
    params = random_params(config)
    return params, from_params(config, params)


def call_of(config):
    params = random_params(config)

    @jax.jit
    def call(tokens, features, state, reset, valid):
        hidden = from_params(config, params).hidden(tokens, state, reset, valid, features=features)
        return hidden.stream, hidden.state

    return call, jax.jit(lambda rows: from_params(config, params).init_state(rows), static_argnums=0)


def inputs(seed=0, size=FRAMES.size, rows=2, breaks=0.15, length=LENGTH):
    """Tokens of which most have features, features, and beginnings of documents."""
    rng = np.random.default_rng(seed)
    tokens = (rng.random((rows, length)) < 0.2).astype(np.int32)
    return tokens, rng.normal(size=(rows, length, size)).astype(np.float32), rng.random((rows, length)) < breaks


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def frames_by_loops(params, features, present, reset, causal):
    """What the frames of one row add to its tokens, one frame at a time."""
    document = np.repeat(np.where(present, np.cumsum(reset), -1), 2)
    x = features.reshape(-1, BANDS).astype(np.float64)

    def convolve(x, layer, t, offsets):
        kernel = np.asarray(layer["kernel"], np.float64).reshape(x.shape[1], 3, -1)
        y = np.asarray(layer["bias"], np.float64)
        for place, offset in enumerate(offsets):
            if 0 <= t + offset < len(x) and document[t + offset] == document[t]:
                y = y + x[t + offset] @ kernel[:, place]
        return gelu(y)

    offsets = (-2, -1, 0) if causal else (-1, 0, 1)
    h = np.stack([convolve(x, params["first"], t, offsets) for t in range(len(x))])
    y = np.stack([convolve(h, params["second"], t, (-1, 0, 1)) for t in range(0, len(x), 2)])
    return np.where(present[:, None], y, 0)


@pytest.mark.parametrize("config", [CAUSAL, ENCODER], ids=["causal", "centred"])
def test_frames_equal_loops(config):
    params, model = model_of(config)
    tokens, features, reset = inputs()
    valid = np.arange(LENGTH) < np.array([[LENGTH], [LENGTH - 3]])
    present = (tokens == 0) & valid
    features = np.where(present[..., None], features, 0)
    state = model.features.init_state(2)
    found = np.asarray(jax.jit(model.features)(features, state, present, reset, valid)[0])
    for row in range(2):
        expected = frames_by_loops(params["features"], features[row], present[row], reset[row], config.causal)
        np.testing.assert_allclose(np.where(present[row][:, None], found[row], 0), expected, atol=2e-6)


def test_any_cut_gives_the_same_hidden_states_and_state():
    call, fresh = call_of(CAUSAL)

    @given(seed=st.integers(0, 2**32 - 1), breaks=st.sampled_from([0.0, 0.3]), sizes=st.permutations([1, 1, 2, 4, 4]))
    def law(seed, breaks, sizes):
        tokens, features, reset = inputs(seed, breaks=breaks)
        whole, after = call(tokens, features, fresh(2), reset, np.ones(tokens.shape, bool))
        state, parts, start = fresh(2), [], 0
        for used in sizes:  # each call has room for four tokens
            here = np.minimum(start + np.arange(4), LENGTH - 1)
            valid = np.broadcast_to(np.arange(4) < used, (2, 4))
            noise = np.where(valid[..., None], features[:, here], np.float32(np.nan))
            stream, state = call(tokens[:, here], noise, state, reset[:, here], valid)
            parts.append(np.asarray(stream)[:, :used])
            start += used
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
        assert state_difference(after, state) < 1e-5
        jax.tree.map(np.testing.assert_array_equal, after.features, state.features)

    law()


def test_centered_frames_equal_loops_in_any_cut():
    """The mean of each band over the frames so far of the document, whether its tokens have features or not."""
    for seed in range(2):
        tokens, x, reset = inputs(seed, breaks=0.2)
        present, valid = tokens == 0, np.ones(tokens.shape, bool)
        x = np.where(present[..., None], x, 0)
        expected = np.zeros_like(x)
        for row in range(2):
            seen: list[np.ndarray] = []
            for place in range(LENGTH):
                seen = [] if reset[row, place] else seen
                if present[row, place]:
                    seen += [*x[row, place].reshape(2, BANDS)]
                    expected[row, place] = x[row, place] - np.tile(np.mean(seen, axis=0), 2)
        sums, parts, call = POOLS["mean"].empty(2, BANDS + 1), [], jax.jit(centered)
        for part in (slice(0, 4), slice(4, 8), slice(8, LENGTH)):
            arrays = [array[:, part] for array in (x, present, reset, valid)]
            found, sums = call(arrays[0], sums, *arrays[1:])
            parts.append(found)
        np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, atol=1e-5)


def test_centered_frames_are_those_of_a_louder_sound_through_another_microphone():
    tokens, x, reset = inputs(1)
    present, change = tokens == 0, np.tile(np.float32([0.5, -1.0, 2.0]), 2)
    centering = dataclasses.replace(CAUSAL, features=dataclasses.replace(FRAMES, center=True))

    @jax.jit
    def read(x):
        """With and without `center`."""
        x, found = jnp.where(present[..., None], x, 0), []
        for config in (centering, CAUSAL):
            module = Frames(config, nnx.Rngs(0))
            found.append(module(x, module.init_state(2), present, reset, np.ones_like(present))[0])
        return found

    (centered, plain), (centered_other, plain_other) = read(x), read(x + change)
    np.testing.assert_allclose(centered_other, centered, atol=1e-5)
    assert np.abs(plain_other - plain).max() > 0.1  # it can fail
    with pytest.raises(ValueError, match=r"features\.center=True needs a decoder"):
        Frames(dataclasses.replace(ENCODER, features=centering.features), nnx.Rngs(0))


@pytest.mark.slow
def test_an_encoder_reads_calls_of_equal_length_as_one_long_call():
    """An encoder attends to all tokens of a call; the same calls give the same outputs in one program or in several."""
    config = HeadedConfig(backbone=ENCODER, head=LabelHeadConfig(pool="mean"), call_length=4)
    params = random_params(config)
    tokens, features, reset = inputs(3)

    @jax.jit
    def call(tokens, features, reset, state):
        return from_params(config, params)(tokens, state, reset, features=features)

    state = from_params(config, params).init_state(2)
    whole, _ = call(tokens, features, reset, state)
    parts = []
    for first in range(0, LENGTH, 4):
        part = slice(first, first + 4)
        outputs, state = call(tokens[:, part], features[:, part], reset[:, part], state)
        parts.append(outputs)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


PLAIN = dataclasses.replace(ENCODER, memory=NoMemoryConfig())
ENCODERS = {
    "frames": PLAIN,
    "patches": dataclasses.replace(PLAIN, features=dataclasses.replace(PICTURES, stem=())),
    "stem": dataclasses.replace(PLAIN, features=PICTURES),
}


@pytest.mark.parametrize("name", [pytest.param("patches", marks=pytest.mark.slow), "frames", "stem"])
def test_masked_features_change_nothing(name):
    """Bitwise: what padding and tokens without features hold. To rounding: whether there is padding."""
    config = ENCODERS[name]
    call, fresh = call_of(config)
    tokens, features, _ = inputs(1, config.features.size)
    tokens[:, :8] = [[0, 0, 1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0, 1]]  # whole pictures of two patches
    reset = np.zeros(tokens.shape, bool)
    valid = np.broadcast_to(np.arange(LENGTH) < 8, tokens.shape)
    masked = ~valid | (tokens == 1)
    one, state = call(tokens, features, fresh(2), reset, valid)
    noise = np.where(masked[..., None], np.float32(np.nan), features)
    other, again = call(tokens, noise, fresh(2), reset, valid)
    np.testing.assert_array_equal(one[:, :8], other[:, :8])
    jax.tree.map(np.testing.assert_array_equal, state, again)
    short, _ = call(tokens[:, :8], features[:, :8], fresh(2), reset[:, :8], valid[:, :8])
    np.testing.assert_allclose(short, one[:, :8], atol=1e-6)
    moved = np.where((np.arange(LENGTH) == 2)[None, :, None] & ~masked[..., None], features + 1, features)
    assert np.abs(call(tokens, moved, fresh(2), reset, valid)[0] - one)[:, :8].max() > 1e-3  # it can fail


@pytest.mark.slow
def test_a_stem_is_a_stack_of_convolutions_of_each_picture():
    config = dataclasses.replace(PLAIN, features=PICTURES)
    params, model = model_of(config)
    pixels = np.random.default_rng(0).normal(size=(2, 4, 8, 2)).astype(np.float32)
    x = jnp.asarray(pixels)
    for index, stride in enumerate((1, 2, 2)):
        kernel = params["features"]["stem"][str(index)]["kernel"].reshape(3, 3, x.shape[-1], -1)
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=dimensions)
        scale = params["features"]["norms"][str(index)]["scale"].reshape(1, 1, 1, -1)
        x = jax.nn.gelu(x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * scale)
    expected = x.reshape(4, -1) @ params["features"]["projection"]["kernel"]

    features = np.zeros((1, 6, PICTURES.size), np.float32)  # a token, a picture, a token, a picture
    tokens = np.array([[1, 0, 0, 1, 0, 0]], np.int32)
    features[:, tokens[0] == 0] = np.concatenate([patches(picture, 4) for picture in pixels])[None]
    present, flags = jnp.asarray(tokens == 0), jnp.zeros((1, 6), bool)
    found, _ = model.features(jnp.asarray(features), (), present, flags, ~flags)
    np.testing.assert_allclose(found[0, tokens[0] == 0], expected, rtol=1e-4, atol=1e-5)


def test_a_stem_sees_whole_pictures_of_one_document():
    """A picture that is cut by the end of its document or of the call is refused, traced NaN, and changes no other."""
    config = dataclasses.replace(PLAIN, features=PICTURES)
    _, model = model_of(config)
    all_of_two = np.ones((1, 2), bool)
    stem = jax.jit(lambda *arrays: model.features(arrays[0], (), *arrays[1:])[0])
    rng = np.random.default_rng(0)
    present = np.array([[1, 0, 1, 0, 1, 1, 1, 1, 0, 1], [1, 1, 1, 1, 1, 0, 0, 1, 1, 0]], bool)
    reset = np.zeros(present.shape, bool)
    reset[0, [3, 7]], reset[1, [3, 4]] = True, True  # in a picture, at a token without features, at a picture
    features = np.where(present[..., None], rng.normal(size=(*present.shape, PICTURES.size)), 0).astype(np.float32)
    whole = np.array([[1, 0, 1, 0, 1, 1, 0, 1, 0, 1], [1, 1, 0, 0, 1, 0, 0, 1, 0, 0]], bool)
    found = stem(features, present, reset, np.ones(present.shape, bool))
    np.testing.assert_array_equal(np.isnan(found).any(axis=-1), present & ~whole)
    for pair in ((0, [0, 2]), (0, [4, 5]), (0, [7, 9]), (1, [0, 1]), (1, [4, 7])):
        alone = stem(features[pair][None], all_of_two, ~all_of_two, all_of_two)
        np.testing.assert_allclose(found[pair], alone[0], atol=1e-6)
    with pytest.raises(ValueError, match="a picture must be whole in a call, all its 2 patches in one document"):
        model.hidden(np.where(present, 0, 1), model.init_state(2), reset, features=features)
    kept = np.where(whole, 0, 1).astype(np.int32)
    assert np.isfinite(model.hidden(kept, model.init_state(2), reset, features=features).stream).all()


def test_patches_and_frames_in_one_stream_of_any_cut():
    senses = SensesConfig(pictures=dataclasses.replace(PICTURES, stem=()), sound=dataclasses.replace(FRAMES, token=1))
    config = dataclasses.replace(CAUSAL, features=senses)
    call, fresh = call_of(config)
    tokens = np.array([[1, 1, 0, 0, 1, 2, 1, 0, 1, 1, 2, 0], [0, 0, 1, 1, 1, 1, 2, 2, 0, 1, 1, 1]], np.int32)
    features = np.random.default_rng(0).normal(size=(2, LENGTH, senses.size)).astype(np.float32)
    reset = np.zeros(tokens.shape, bool)
    reset[1, 4] = True
    used = np.arange(senses.size) < np.array([senses.pictures.size, senses.sound.size, 0])[tokens][..., None]
    whole, after = call(tokens, np.where(used, features, 7), fresh(2), reset, np.ones(tokens.shape, bool))
    state, parts = fresh(2), []
    for first in range(0, LENGTH, 4):
        part = slice(first, first + 4)
        out, state = call(tokens[:, part], np.where(used, features, 0)[:, part], state, reset[:, part], ~reset[:, :4])
        parts.append(out)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    assert state_difference(after, state) < 1e-5
    moved, _ = call(tokens, np.where(used, features + 1, 7), fresh(2), reset, np.ones(tokens.shape, bool))
    assert np.any(moved != whole, axis=-1)[tokens < 2].all()
    with pytest.raises(ValueError, match=r"features\.sound\.token=0 must be another id"):
        SensesConfig(sound=FRAMES)


def test_patches_are_in_the_order_of_rows():
    pixels = np.arange(4 * 8 * 2).reshape(4, 8, 2)
    found = patches(pixels, 4)
    assert found.shape == (2, 32)
    np.testing.assert_array_equal(found[1], pixels[:, 4:].transpose(2, 0, 1).reshape(-1))


def test_wrong_features_are_refused_by_name():
    _, model = model_of(PLAIN)
    tokens, features, _ = inputs()
    with pytest.raises(ValueError, match=r"features must be floats\[2, 12, 6\].*got float32\[2, 12, 5\]"):
        model.hidden(tokens, features=features[..., :5])
    with pytest.raises(ValueError, match="features must be floats"):
        model.hidden(tokens, features=features.astype(int))
    with pytest.raises(ValueError, match="features are missing"):
        model.hidden(tokens)
    row, token = np.argwhere(tokens == 0)[3]
    wrong = features.copy()
    wrong[row, token, 1] = np.nan
    with pytest.raises(ValueError, match=rf"features are not finite: row \[{row}\], token \[{token}\]"):
        model.hidden(tokens, features=wrong)
    missing = jax.jit(lambda tokens: model.hidden(tokens).stream)(tokens)
    assert np.isnan(missing).any(axis=(1, 2)).all()
    plain = dataclasses.replace(PLAIN, features=None)
    with pytest.raises(ValueError, match="features: this model has none"):
        from_params(plain, random_params(plain)).hidden(tokens, features=features)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (PatchesConfig, {"height": 30}, "height=30 must be a multiple of patch_size=4"),
        (PatchesConfig, {"patch_size": 8, "stem": (4, 4)}, r"at least log2\(patch_size\) widths"),
        (PatchesConfig, {"height": 6, "width": 6, "patch_size": 3, "stem": (4, 4)}, "a power of two"),
        (PatchesConfig, {"stem": (4, 0)}, "positive widths"),
        (FramesConfig, {"num_mels": 0}, "num_mels must be at least 1"),
    ],
)
def test_bad_configurations_are_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
    with pytest.raises(ValueError, match=r"features.token=3 must be below vocab_size=3"):
        dataclasses.replace(ENCODER, features=FramesConfig(token=3))
