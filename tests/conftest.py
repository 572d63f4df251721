"""JAX at its strictest, and reproducible hypothesis examples, for every test."""

import gc
import os
import sys
import time
from pathlib import Path
from unittest import mock

# Compiled programs are kept on disk, for this run, its worker processes, the programs that tests start, and later runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

import tests.laws.annotations

# Shapes and dtypes of arguments and results are checked whenever a function of these packages is traced or called.
# The hook must be in place before memgpt_jax is first imported.
CHECKED = ["memgpt_jax.ops", "memgpt_jax.memory"]
WITH_ANNOTATIONS = ("tests/ops/", "tests/memory/test_contract.py")
"""Tests in which the checks are on: of every function, and of every mechanism once."""
jaxtyping.install_import_hook(CHECKED, f"{tests.laws.annotations.__name__}.checked")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Tests compile hundreds of tiny programs and run each for milliseconds: compile fast, not well (a fifth of the time).
# XLA reads its flags when the first device is asked for; programs inherit them only through `compiled_as_here`.
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests what users run (`make test-slow`).
jax.config.update("jax_disable_most_optimizations", os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") != "0")
FAST = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
flags = os.environ.get("XLA_FLAGS", "")
if jax.__version_info__ < (0, 11):  # later releases refuse the first flag
    flags = f"{flags} {FAST}"
with mock.patch.dict(os.environ, {"XLA_FLAGS": flags}):
    jax.devices()

# `pytest --hypothesis-profile=explore` looks for new counterexamples.
quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.differing_executors]}
settings.register_profile("reproducible", derandomize=True, max_examples=10, database=None, **quiet)
settings.register_profile("explore", max_examples=200, **quiet)
settings.load_profile("reproducible")

# Traced programs are millions of Python objects, which a full collection visits: a tenth of the time of the tests.
gc.set_threshold(50_000, 20, 100)

LONGEST_FIRST = ("parallel", "studies", "training", "interop", "generation", "memory")


def pytest_collection_modifyitems(items):
    """Run the folders with long tests first, so that no worker runs one of them alone at the end."""

    def rank(item) -> int:
        folder = Path(item.fspath).parent.name
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def compiled_as_here() -> dict[str, str]:
    """The environment in which a program compiles as this process does: equal results, one compilation cache."""
    disabled = str(int(jax.config.read("jax_disable_most_optimizations")))
    return os.environ | {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": disabled}


@pytest.fixture
def slowness() -> float:
    """By how much limits of time are stretched: 1, or more on a machine where Python itself is slow just now."""
    start, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    return max(1.0, (time.process_time() - start) / 0.03)


LARGE_HEAP = 2 * 10**9
"""Bytes of a worker above which `small_heap` drops the compiled programs of earlier tests: all would take 5 GB."""


@pytest.fixture(scope="module", autouse=True)
def small_heap():
    """Keep the heap small: a large one makes every garbage collection slow. Dropping them takes time, too."""
    yield
    used = Path("/proc/self/statm")
    if not used.exists() or int(used.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > LARGE_HEAP:
        jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def registrations():
    """Take back what a module registers itself, or by the configs and the examples that it loads."""
    before = {id(registry): set(registry) for registry in registries()}
    yield
    for registry in registries():
        for name in set(registry) - before.get(id(registry), set()):
            module = registry[name].module
            defined = module if isinstance(module, type) else type(module)
            if not defined.__module__.startswith("memgpt_jax."):
                registry.unregister(name)


def registries() -> list:
    """The registries of the package, as far as its modules are imported."""
    from memgpt_jax.config.registry import Registry

    modules = [module for name, module in sys.modules.items() if name.startswith("memgpt_jax")]
    values = [value for module in modules for value in vars(module).values()]
    return list({id(value): value for value in values if isinstance(value, Registry)}.values())


@pytest.fixture(scope="module", autouse=True)
def annotations(request):
    """Check annotations in the tests of `WITH_ANNOTATIONS`; the checks take an eighth of the time of a test."""
    jaxtyping.config.update("jaxtyping_disable", not request.node.nodeid.startswith(WITH_ANNOTATIONS))
