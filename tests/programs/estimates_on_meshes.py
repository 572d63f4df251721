"""What a training step takes on each device of a mesh: the estimate, over what the compiler reports.

python estimates_on_meshes.py [MESH ...] [--memory NAME ...] [--size NAME ...] [--remat NAME ...]

prints a line for each combination: mesh, memory, size, remat, estimated bytes, reported bytes, ratio. A mesh is
`data=2,fsdp=2`. Sizes: `wide` (parameters are most of it) and `long` (activations are). A line takes 5 to 30 s.
"""

import argparse
import functools
import itertools
import os

os.environ.setdefault("PJRT_NPROC", "32")  # threads for all devices, however few cores there are

import jax

from memgpt_jax import data, parallel
from memgpt_jax.config.experiment import ExperimentConfig, ParallelConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.memory.associative import AssociativeMemoryConfig
from memgpt_jax.training import preflight
from memgpt_jax.training.compilation import jitted_step
from memgpt_jax.training.state import create

MESHES = ["data=2", "data=4", "fsdp=2", "fsdp=4", "tensor=2", "sequence=2"]
MESHES += ["data=2,fsdp=2", "data=2,tensor=2", "fsdp=2,tensor=2", "data=2,fsdp=2,tensor=2", "data=2,fsdp=4"]
MEMORIES = {
    "none": NoMemoryConfig(),
    "kv": KVMemoryConfig(memory_size=256, num_heads=2, head_dim=32),
    "associative": AssociativeMemoryConfig(num_heads=2, head_dim=32),
}
SIZES = {
    "long": {"d_model": 64, "num_layers": 2, "vocab_size": 1024, "length": 256},
    "wide": {"d_model": 256, "num_layers": 3, "vocab_size": 4096, "length": 64},
}
# The code that LLVM makes takes no part in what is in memory.
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def experiment(memory: str, size: str, remat: str) -> ExperimentConfig:
    sizes = dict(SIZES[size])
    training = TrainingConfig(batch_size=8, sequence_length=sizes.pop("length"))
    options = {"num_heads": 4, "window_size": 64, "segment_length": 32, "remat": remat}
    return ExperimentConfig(model=ModelConfig(memory=MEMORIES[memory], **sizes, **options), training=training)


def reported(config: ExperimentConfig, mesh: jax.sharding.Mesh) -> int:
    """What the compiler says that a step takes on each device."""
    shapes = data.batch_shapes(config.data, config.training)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), shapes)
    state = jax.eval_shape(functools.partial(create, config))
    with jax.set_mesh(mesh):
        compiled = jitted_step(config, mesh).lower(state, batch).compile(compiler_options=FAST)
    found = compiled.memory_analysis()
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + results + found.temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("meshes", nargs="*", default=MESHES)
    parser.add_argument("--memory", nargs="+", default=list(MEMORIES))
    parser.add_argument("--size", nargs="+", default=list(SIZES))
    parser.add_argument("--remat", nargs="+", default=["none"])
    words = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    for name, *model in itertools.product(words.meshes, words.memory, words.size, words.remat):
        sizes = {axis: int(size) for axis, size in (pair.split("=") for pair in name.split(","))}
        mesh, config = parallel.make_mesh(ParallelConfig(**{"data": 1} | sizes)), experiment(*model)
        estimated, report = preflight.estimate(config, mesh).device_bytes, reported(config, mesh)
        print(name, *model, estimated, report, f"{estimated / report:.2f}", flush=True)


if __name__ == "__main__":
    main()
