"""States without empty slots are the same states, bitwise, in fewer bytes."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.generation.document import from_bytes, to_bytes
from memgpt_jax.generation.packing import pack, packed_array, packed_bytes, unpack
from memgpt_jax.memory import MEMORIES
from tests.laws.models import random_params


def filled(shape, dtype, slots):
    """Zeros with other bytes in some of the slots; the sign of -0.0 is one of them."""
    array = np.zeros(shape, dtype)
    array[-1, slots] = -0.0 if np.issubdtype(array.dtype, np.floating) else 1
    return array


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32, bool])
@pytest.mark.parametrize(("slots", "number"), [([], 0), ([0], 1), ([2, 5], 4), ([8], 1), (list(range(9)), 9)])
def test_the_slots_between_the_first_and_the_last_used_one_are_kept(slots, number, dtype):
    for shape in ((2, 9), (2, 9, 3), (1, 9, 2, 5)):
        array = filled(shape, dtype, slots)
        packed = pack({"a": array})
        assert packed["a"].slots.shape[1] == number and packed_bytes(packed) == array.nbytes * number // 9
        found = unpack(packed)["a"]
        assert found.dtype == array.dtype and found.tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 0, 4)])
def test_arrays_without_slots_are_kept_whole(shape):
    array = np.ones(shape, np.float32)
    assert unpack(pack(array)).shape == shape and packed_bytes(pack(array)) == array.nbytes


def test_packed_arrays_own_their_slots():
    """Views would keep the buffers of JAX."""
    packed = pack([jnp.ones(3), jnp.ones((2, 4)), jnp.zeros((2, 4)).at[:, 1].set(1)])
    assert all(array.slots.flags.owndata for array in packed)


class Untouchable:
    """An array that must not be fetched."""

    def __array__(self, *arguments, **options):
        raise AssertionError("it was fetched")


def test_what_is_too_large_is_not_packed():
    """Empty slots do not count, and nothing is fetched after what is too large."""
    state = [jnp.ones((2, 4)), jnp.zeros((2, 4)).at[:, 1:3].set(1), jnp.zeros((2, 9))]
    assert packed_bytes(pack(state, 48)) == packed_bytes(pack(state)) == 48
    assert pack(state, 47) is None and pack([*state[:2], Untouchable()], 47) is None


@pytest.mark.parametrize(
    ("size", "shape", "start"), [(16, (1, 2, 2), 3), (16, (1, 2, 2), -1), (16, (1, 1, 4), 0), (12, (1, 2, 2), 0)]
)
def test_slots_that_are_no_part_of_the_array_are_refused(size, shape, start):
    like = jax.ShapeDtypeStruct((1, 4, 2), jnp.float32)
    with pytest.raises(ValueError, match="no part of an array of the shape"):
        packed_array(bytes(size), shape, start, like)


@pytest.mark.parametrize("name", [name for name in MEMORIES if name != "none"])
def test_a_document_of_any_mechanism_is_read_back_bitwise(name):
    memory = MEMORIES[name].config()
    config = mg.ModelConfig(
        vocab_size=257, d_model=64, num_layers=1, num_heads=2, window_size=512, segment_length=4, memory=memory
    )
    session = mg.Session((config, random_params(config)), ByteTokenizer())
    session.feed("Short.")
    before = session.document()
    content = to_bytes(before, config, ByteTokenizer())
    after, _ = from_bytes(content, config, ByteTokenizer(), "a file")
    for found, expected in zip(jax.tree.leaves(after.state), jax.tree.leaves(before.state), strict=True):
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
    window = before.state.layers[0].window
    assert window.keys.nbytes > 100_000 and packed_bytes(pack(window)) < 10_000
