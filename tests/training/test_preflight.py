"""What is told of a run before it starts: against the compiler's own report, and against counting by hand."""

import dataclasses
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from memgpt_jax import data, models, parallel
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig, ParallelConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.data import OBJECTIVES
from memgpt_jax.errors import RunError
from memgpt_jax.memory import MEMORIES
from memgpt_jax.models.parameters import count_parameters
from memgpt_jax.training import preflight
from memgpt_jax.training.compilation import jitted_step
from memgpt_jax.training.state import create

KV = KVMemoryConfig(memory_size=256, num_heads=2, head_dim=32)
LEAST_READ = KVMemoryConfig(memory_size=256, evict="least_read")
NONE = NoMemoryConfig()


def experiment(memory, accumulate_steps=1, length=256, **model) -> ExperimentConfig:
    sizes = {"vocab_size": 1024, "d_model": 64, "num_layers": 2, "window_size": 64, "segment_length": 32}
    return ExperimentConfig(
        model=ModelConfig(memory=memory, **sizes | model),
        optimizer=OptimizerConfig(accumulate_steps=accumulate_steps),
        training=TrainingConfig(batch_size=4, sequence_length=length),
    )


def other(objective, memory=NONE, length=256, **model) -> ExperimentConfig:
    """Of another objective. The encoder of an encoder-decoder has the memory."""
    sizes = {"vocab_size": 1024, "d_model": 64, "num_layers": 2, "segment_length": 32} | model
    if objective == "permutation":
        model = XLNetConfig(memory=memory, **sizes)
    else:
        sizes["position"] = "relative"
        model = EncoderConfig(memory=memory, **sizes, heads=("masked",) if objective == "masked" else ())
    if objective == "span_corruption":
        decoder = ModelConfig(memory=NONE, window_size=64, source_length=length, **sizes)
        model = Seq2SeqConfig(encoder=model, decoder=decoder)
    training = TrainingConfig(batch_size=4, sequence_length=length)
    return ExperimentConfig(model=model, data=TextConfig(objective=OBJECTIVES[objective].config()), training=training)


def one_device():
    return parallel.make_mesh(ParallelConfig(data=1))


def reported(config: ExperimentConfig) -> int:
    """What the compiler says that the step of a training run takes, compiled as there."""
    batch = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct((config.optimizer.accumulate_steps, *array.shape), array.dtype),
        data.batch_shapes(config.data, config.training),
    )
    state = jax.eval_shape(functools.partial(create, config))
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        found = jitted_step(config, one_device()).lower(state, batch).compile().memory_analysis()
    finally:
        jax.config.update("jax_disable_most_optimizations", True)  # as in conftest.py
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + results + found.temp_size_in_bytes


QUICK = {
    "none": experiment(NONE),
    "kv": experiment(KV, num_layers=1, accumulate_steps=2),
    "kv in attention": experiment(LEAST_READ, num_layers=1, fusion="attention"),
}
SPREAD = (
    {
        f"{name}, large": experiment(kind.config(), 1, 512, d_model=128, vocab_size=2048)
        for name, kind in MEMORIES.items()
    }
    | {"kv, recomputed": experiment(KV, 1, 512, d_model=128, num_layers=4, remat="block")}
    | {"kv, bfloat16": experiment(KV, 1, 512, d_model=128, dtype="bfloat16")}
    | {"none, recomputed": experiment(NONE, num_layers=3, remat="block")}
    | {"none, SwiGLU": experiment(NONE, 1, 512, d_model=256, activation="swiglu", norm="layernorm")}
    | {f"{name}, large": other(name, NONE, 512, d_model=128) for name in ("masked", "span_corruption", "permutation")}
    | {"spans": other("span_corruption", num_layers=1), "permutation": other("permutation", KV)}
    | {"spans, recomputed": other("span_corruption", NONE, 512, d_model=128, remat="block")}
    | {"none, many words": experiment(NONE, 1, 512, d_model=128, vocab_size=32768)}
)


@jax.numpy_dtype_promotion("standard")  # Flax's norms multiply bfloat16 by float32
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SPREAD)])
def test_the_estimate_is_within_15_percent_of_the_compilers_report(name):
    config = (QUICK | SPREAD)[name]
    assert preflight.estimate(config, one_device()).device_bytes == pytest.approx(reported(config), rel=0.15)


CHECKER = Path(__file__).parents[1] / "programs" / "estimates_on_meshes.py"
SHORT = ("data=2,fsdp=2", "--memory", "none", "--size", "long")
BROAD = [("--memory", name, "--size", size) for name in ("none", "kv", "associative") for size in ("long", "wide")]
BROAD += [("data=2", "fsdp=2", "--memory", "none", "associative", "--remat", "block")]


@pytest.mark.parametrize(
    "words", [SHORT, *(pytest.param(words, marks=pytest.mark.slow) for words in BROAD)], ids=" ".join
)
def test_on_a_mesh_too_the_estimate_is_within_15_percent(words):
    environment = os.environ | {"PYTHONPATH": str(CHECKER.parents[2]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, CHECKER, *words]
    lines = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout.splitlines()
    assert lines and all(0.85 <= float(line.split()[-1]) <= 1.15 for line in lines), lines


@pytest.mark.parametrize(
    "config",
    [
        experiment(KV, memory_layers=(1,), accumulate_steps=2),
        other("span_corruption", KV, memory_layers=(1,)),
        other("permutation", KV, memory_layers=(1,)),
    ],
    ids=["causal", "spans", "permutation"],
)
def test_what_a_run_is_given_is_counted_exactly(config):
    found, state = preflight.estimate(config, one_device()), jax.eval_shape(functools.partial(create, config))
    size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert found.parameters == count_parameters(config.model)
    assert found.terms["parameters"] == size(state.params)
    assert found.terms["optimizer state"] == pytest.approx(size(state.opt_state), abs=64)  # counters
    layers = getattr(state.memory, "layers", None) or [stack.layers for stack in state.memory]
    assert found.state_bytes == found.terms["windows and memories"] == size(layers)
    batch = size(data.batch_shapes(config.data, config.training)) * config.optimizer.accumulate_steps
    assert found.terms["batch"] == batch


def test_a_mesh_splits_what_a_device_holds():
    config = experiment(KV)
    whole = preflight.estimate(config, one_device())
    for axis in ("fsdp", "tensor", "sequence"):
        mesh = jax.sharding.AbstractMesh(tuple(2 if name == axis else 1 for name in parallel.AXES), parallel.AXES)
        half = preflight.estimate(config, mesh)
        assert half.parameters == whole.parameters and half.state_bytes == whole.state_bytes
        assert half.terms["windows and memories"] < 0.75 * whole.terms["windows and memories"]
        assert half.device_bytes < whole.device_bytes
        if axis != "sequence":
            assert half.terms["parameters"] < 0.6 * whole.terms["parameters"]
            assert half.device_bytes < 0.75 * whole.device_bytes


@pytest.mark.parametrize("memory", [{"initial_entries": 200}, {"match_state_bytes": 200_000}], ids=str)
def test_a_mesh_may_split_any_memory(memory):
    mesh = jax.sharding.AbstractMesh((1, 1, 1, 4), parallel.AXES)
    config = experiment(dataclasses.replace(KV, **memory), num_layers=1)
    assert preflight.estimate(config, mesh).device_bytes < preflight.estimate(config, one_device()).device_bytes


def test_kernels_count_as_the_portable_form_and_are_refused_where_they_do_not_work():
    portable, kernel = (
        experiment(KVMemoryConfig(read_implementation=name), num_layers=1, attention_implementation=name)
        for name in ("portable", "interpret")
    )
    assert preflight.estimate(kernel, one_device()) == preflight.estimate(portable, one_device())
    wrong = experiment(NONE, num_layers=1, attention_implementation="cudnn")
    with pytest.raises(ValueError, match="'cudnn' does not work here"):
        preflight.check_memory(wrong, one_device())


def test_operations_are_those_of_the_matmuls():
    config = experiment(NONE, num_layers=1, window_size=1)
    model = config.model
    weights = sum(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: models.functional(model).init(jax.random.key(0))))
    )
    found = preflight.estimate(config, one_device()).flops_per_token
    head = 2 * model.d_model * model.vocab_size  # logits are computed again for the backward pass
    assert 6 * weights + head < found < 1.3 * (6 * weights + head)  # attention on top


REFUSED = """
import atexit, sys, time
sys.path.insert(0, "experiments")
import train
from memgpt_jax.training import loop, preflight

def timed(*arguments):
    start = time.process_time()
    atexit.register(lambda: print(time.process_time() - start))
    return preflight.check_memory(*arguments)

loop.check_memory = timed
train.main()
"""


def test_what_does_not_fit_is_refused_at_once_by_name(tmp_path, slowness):
    words = ["quickstart", "--workdir", str(tmp_path / "run"), "--model.num_layers", "24"]
    words += ["--model.d_model", "1024", "--training.batch_size", "100000", "--model.memory.memory_size", "2048"]
    command, root = [sys.executable, "-c", REFUSED, *words], Path(__file__).parents[2]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True)
    error = ended.stderr
    assert ended.returncode == 2 and error.count("\n") == 1
    assert float(ended.stdout) < 2 * slowness
    assert re.search(
        r"takes about [\d.,]+ TB of memory on each device, which has .* most of it: saved activations", error
    )
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_accelerator_says_its_own_limit(monkeypatch):
    config = experiment(NONE)
    need = preflight.estimate(config, one_device()).device_bytes
    monkeypatch.setattr(preflight, "device_memory", lambda mesh: need)
    assert preflight.check_memory(config, one_device()).device_bytes == need
    monkeypatch.setattr(preflight, "device_memory", lambda mesh: need - 1)
    with pytest.raises(RunError, match="which has"):
        preflight.check_memory(config, one_device())


def test_the_estimate_reads_as_a_line():
    found = preflight.Estimate(1_234_567, 2_000_000, 3_450_000, {"parameters": 5_000_000_000, "batch": 1})
    assert (
        str(found) == "1,234,567 parameters, 2 MB of state, about 5 GB of memory on each device, 3.45 MFLOP per token"
    )
