"""The annotations of `memgpt_jax.ops` are checked in every test: tests/conftest.py installs the hook."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from memgpt_jax.ops import gated_fusion
from memgpt_jax.ops.attention import masked_bias


def test_a_wrong_shape_raises_and_names_the_argument():
    with pytest.raises(jaxtyping.TypeCheckError, match="typechecking parameter 'read'"):
        gated_fusion(jnp.zeros((2, 4)), jnp.zeros((2, 5)), jnp.zeros((2, 1)))


def test_a_wrong_dtype_raises_under_jit_and_names_the_argument():
    with pytest.raises(jaxtyping.TypeCheckError, match="typechecking parameter 'visible'"):
        jax.jit(masked_bias)(jnp.zeros(3, jnp.int32))
