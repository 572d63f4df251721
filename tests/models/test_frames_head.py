"""The head for frames: its loss by hand, what is said against one call with the same frames, and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.features import FramesConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig
from memgpt_jax.generation.speech import speak
from memgpt_jax.models import functional
from memgpt_jax.models.heads import FramesHead, FramesHeadConfig
from memgpt_jax.models.heads.frames import frame_scores
from tests.laws.models import random_params

BANDS, LONGEST, LENGTH = 3, 10, 15
SIZES = {"vocab_size": 6, "d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 12, "segment_length": 3}
MEMORY = KVMemoryConfig(memory_size=6, num_heads=2, head_dim=4)
BACKBONE = ModelConfig(**SIZES, window_size=5, memory=MEMORY, features=FramesConfig(num_mels=BANDS))
CONFIG = HeadedConfig(backbone=BACKBONE, head=FramesHeadConfig())
PROMPTS = [np.array(ids, np.int32) for ids in ([4, 1, 2, 3], [5, 3], [4, 2, 3], [5, 1, 1, 2, 3])]


@jax.jit
def apply(params, tokens, valid, features):
    model = functional(CONFIG)
    return model.apply(params, tokens, model.init_state(len(tokens)), valid=valid, features=features)[0]


def params_of(end):
    """Random parameters. Args: end: the bias of the logit of the end."""
    params = jax.tree.map(lambda x: 2 * np.asarray(x), random_params(CONFIG))
    params["head"]["output"]["bias"] = np.float32([*np.zeros(2 * BANDS), end])
    return params


@pytest.mark.parametrize("end", [-9.0, -1.0])
def test_what_is_said_is_what_one_call_predicts_after_the_same_frames(end):
    """Of prompts and sounds of several lengths at once, with padding. Without an end, it is cut."""
    params = params_of(end)
    said = speak(CONFIG, params, PROMPTS, rows=3, longest=LONGEST)
    sizes = [(len(prompt), len(speech.frames) // 2) for prompt, speech in zip(PROMPTS, said, strict=True)]
    if end == -9:
        assert not any(speech.finished for speech in said)
    else:
        assert len({*sizes}) == len(PROMPTS) and any(speech.finished for speech in said)
    tokens, features = np.zeros((4, LENGTH), np.int32), np.full((4, LENGTH, 2 * BANDS), np.nan, np.float32)
    for row, (prompt, speech) in enumerate(zip(PROMPTS, said, strict=True)):
        start, number = sizes[row]
        tokens[row, :start], features[row, start : start + number] = prompt, speech.frames.reshape(number, -1)
    outputs = apply(params, tokens, np.arange(LENGTH)[None] < np.sum(sizes, axis=1)[:, None], features)
    for found, speech, (start, number) in zip(outputs, said, sizes, strict=True):
        frames, ends = found[start - 1 : start + number - 1, :-1], np.asarray(found[start : start + number, -1] > 0)
        np.testing.assert_allclose(frames.reshape(-1, BANDS), speech.frames, rtol=1e-3, atol=1e-4)
        assert not ends[:-1].any() and ends[-1] == speech.finished and (speech.finished or number == LONGEST)


def test_the_loss_by_hand():
    outputs, targets = np.zeros((1, 2, 3), np.float32), np.zeros((1, 2, 3), np.float32)
    outputs[0] = [[1.0, -2.0, np.log(3)], [9.0, 9.0, np.log(3)]]  # p(end) = 3/4
    targets[0] = [[0.5, 0.0, 0], [0.0, 0.0, 1]]
    found = frame_scores(jnp.asarray(outputs), jnp.asarray(targets))
    np.testing.assert_allclose(found.losses, [[1.25 + np.log(4), np.log(4 / 3)]], rtol=1e-5)
    assert found.correct.tolist() == [[False, True]]


def test_what_is_refused():
    params, model = params_of(0.0), functional(CONFIG)
    tokens, features = np.zeros((1, 2), np.int32), np.zeros((1, 2, 2 * BANDS), np.float32)
    for targets, message in (
        (np.zeros((1, 2, 6), np.float32), r"must be floats\[1, 2, 7\], frames and the end, got float32\[1, 2, 6\]"),
        (np.zeros((1, 2, 7), np.int32), "got int32"),
        (np.full((1, 2, 7), np.inf, np.float32), "must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.score(params, tokens, {"frames": targets}, features=features)
    with pytest.raises(ValueError, match="a frame that the model predicts is NaN"):
        speak(
            CONFIG,
            params | {"head": jax.tree.map(lambda x: x * np.nan, params["head"])},
            PROMPTS[:1],
            rows=3,
            longest=2,
        )
    with pytest.raises(ValueError, match=r"head\.pool must be 'none'"):
        FramesHeadConfig(pool="mean")
    encoder = EncoderConfig(**SIZES, memory=MEMORY, features=BACKBONE.features, heads=())
    for stack in (encoder, dataclasses.replace(BACKBONE, features=None)):
        with pytest.raises(ValueError, match="FramesHeadConfig needs a decoder with features=FramesConfig"):
            FramesHead(FramesHeadConfig(), stack, rngs=nnx.Rngs(0))
