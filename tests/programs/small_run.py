"""A small run, trained as the command line says, in a process of its own: how many devices there are is fixed early.

python small_run.py DEVICES WORKDIR [--steps N] [--mesh data=2,fsdp=4] [--join ADDRESS COUNT ID] [--stuck_after N]
"""

import argparse
import threading

import jax

from memgpt_jax import parallel
from memgpt_jax.config.experiment import (
    EvaluationConfig,
    ExperimentConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainingConfig,
)
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.training import loop, train

STEPS = 12


def config(steps: int, parallel: ParallelConfig) -> ExperimentConfig:
    data = RecallConfig(num_pairs=4, num_keys=16, num_values=16, context_length=32, gap_length=16, query_length=8)
    memory = KVMemoryConfig(memory_size=16, num_heads=2, head_dim=8)
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_ids,
            d_model=16,
            num_layers=1,
            num_heads=2,
            window_size=8,
            segment_length=8,
            memory=memory,
        ),
        data=data,
        optimizer=OptimizerConfig(warmup_steps=5),
        training=TrainingConfig(steps=steps, batch_size=8, log_every=1, checkpoint_every=6),
        evaluation=EvaluationConfig(batch_size=8, num_batches=1),
        parallel=parallel,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("devices", type=int)
    parser.add_argument("workdir")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--mesh", default="data=1")
    parser.add_argument("--join", nargs=3)
    parser.add_argument("--stuck_after", type=int, help="the data stops coming after so many batches")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    if arguments.join:
        address, count, index = arguments.join
        parallel.join_processes(address, int(count), int(index))
    if arguments.stuck_after is not None:
        stack, calls = loop.stack, []

        def stuck(batches):
            calls.append(None)
            if len(calls) > arguments.stuck_after:
                threading.Event().wait()
            return stack(batches)

        loop.stack = stuck
    mesh = ParallelConfig(**{name: int(size) for name, size in (pair.split("=") for pair in arguments.mesh.split(","))})
    train(config(arguments.steps, mesh), arguments.workdir, print_progress=False)


if __name__ == "__main__":
    main()
