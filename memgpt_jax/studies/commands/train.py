"""Train a config in a folder, then evaluate it; the same command resumes an interrupted run.

    memgpt-jax train quickstart --workdir runs/quickstart --model.memory.memory_size 512
    memgpt-jax train quickstart --workdir runs/quickstart --training.steps 800 --extend

On several hosts, run the same command on each with `--distributed` (TPU pods, Slurm, Open MPI), or with `--coordinator
HOST:PORT --num-processes N --process-id I`; the workdir must be a folder that all hosts share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memgpt_jax.files.paths import shown
from memgpt_jax.parallel import join_processes
from memgpt_jax.studies.command_line import one_line_errors, parse
from memgpt_jax.training import RunError, train


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    workdir: Path
    """Folder of the run: checkpoints, tokenizer, metrics.jsonl, TensorBoard files, evaluation.json."""
    extend: bool = False
    """Continue a run with more `training.steps` than before; the remaining steps follow the learning-rate schedule of
    the new number of steps."""
    distributed: bool = False
    """Join the processes that JAX detects in the environment."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to train in several processes."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Number of this process, from 0."""


@one_line_errors(RunError)
def main(argv: Sequence[str] | None = None) -> None:
    config, arguments = parse(Arguments, __doc__, argv)
    processes = arguments.coordinator, arguments.num_processes, arguments.process_id
    if arguments.distributed or any(value is not None for value in processes):
        with one_line_errors():
            join_processes(*processes)
    results = train(config, arguments.workdir, extend=arguments.extend)
    figures = {name: value for name, value in results["evaluation"].items() if isinstance(value, float)}
    print(f"{shown(arguments.workdir)}: finished {results['step']} steps; held-out", end=" ")
    print(", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
