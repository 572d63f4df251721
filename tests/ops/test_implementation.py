"""Which implementation is chosen, by backend, mesh, type and shape."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from memgpt_jax.ops import window_attention
from memgpt_jax.ops.implementation import choose

WINDOW = ("pallas", "cudnn")
LARGE = (jnp.bfloat16, 1024, 64)


@pytest.mark.parametrize(
    "backend, kernels, shape, chosen",
    [
        ("cpu", WINDOW, LARGE, "portable"),
        ("tpu", WINDOW, LARGE, "pallas"),
        ("tpu", (), LARGE, "portable"),
        ("tpu", WINDOW, (jnp.float32, 1024, 64), "portable"),
        ("tpu", WINDOW, (jnp.bfloat16, 64, 64), "portable"),
    ],
)
def test_auto_takes_the_kernel_where_it_is_worth_it(backend, kernels, shape, chosen, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert choose("auto", kernels, *shape) == chosen


def test_a_mesh_of_several_devices_needs_the_portable_form(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((2,), ("data",))):
        assert choose("auto", WINDOW, *LARGE) == "portable"
        with pytest.raises(ValueError, match=r"'pallas' does not work here \(tpu, a mesh of 2 devices.*'portable'$"):
            choose("pallas", WINDOW, *LARGE)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere they may work")
@pytest.mark.parametrize("implementation", ["pallas", "cudnn"])
def test_what_does_not_work_here_is_refused_with_what_does(implementation):
    x, document = jnp.ones((1, 4, 1, 8)), jnp.zeros((1, 4), jnp.int32)
    message = rf"'{implementation}' does not work here \(cpu, float32, .*8\); valid: 'auto', 'portable', 'interpret'$"
    with pytest.raises(ValueError, match=message):
        window_attention(x, x, x, document, document, window_size=2, implementation=implementation)
