"""Which implementation is chosen, by backend, mesh, type and shape."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from memgpt_jax.ops.attention import window_attention
from memgpt_jax.ops.attention.implementation import choose

WINDOW = ("pallas", "cudnn")
LARGE = (jnp.bfloat16, 64)


@pytest.mark.parametrize("backend", ["cpu", "tpu"])
def test_auto_is_portable(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert choose("auto", WINDOW, *LARGE) == "portable"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kernels_can_be_asked_for_on_a_tpu(dtype, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert choose("pallas", WINDOW, dtype, 64) == "pallas"
    with pytest.raises(ValueError, match=r"valid: 'auto', 'portable', 'pallas', 'interpret'$"):
        choose("cudnn", WINDOW, dtype, 64)


def test_entries_that_are_split_over_devices_need_the_portable_form(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((2,), ("sequence",))):
        assert choose("auto", WINDOW, *LARGE) == "portable"
        with pytest.raises(ValueError, match=r"here \(tpu, entries split over 2 devices.*'portable'$"):
            choose("pallas", WINDOW, *LARGE)
    with jax.sharding.use_abstract_mesh(AbstractMesh((2,), ("data",))):
        assert choose("pallas", WINDOW, *LARGE) == "pallas"


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere they may work")
@pytest.mark.parametrize("implementation", ["pallas", "cudnn"])
def test_what_does_not_work_here_is_refused_with_what_does(implementation):
    x, document = jnp.ones((1, 4, 1, 8)), jnp.zeros((1, 4), jnp.int32)
    message = rf"'{implementation}' does not work here \(cpu, float32, .*8\); valid: 'auto', 'portable', 'interpret'$"
    with pytest.raises(ValueError, match=message):
        window_attention(x, x, x, document, document, window_size=2, implementation=implementation)
