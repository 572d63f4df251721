"""Bytes and names of the arrays of a tree."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.ops.trees import named_leaves, tree_bytes


class State(NamedTuple):
    keys: jax.Array
    layers: tuple


def test_bytes_and_names():
    tree = State(jnp.zeros((2, 3), jnp.bfloat16), ({"b": np.zeros(5, bool), "a": jnp.zeros(())},))
    assert tree_bytes(tree) == 2 * 3 * 2 + 5 + 4 == tree_bytes(jax.eval_shape(lambda: tree))
    assert list(named_leaves(tree)) == ["keys", "layers/0/a", "layers/0/b"]
    assert named_leaves(tree)["layers/0/b"] is tree.layers[0]["b"]
