"""Train a config in a folder, then evaluate it; the same command continues after any interruption.

memgpt-jax train quickstart --workdir runs/quickstart --model.memory.memory_size 512
memgpt-jax train quickstart --workdir runs/quickstart --training.steps 800 --extend

On several hosts, the same command on each, with `--distributed` (TPU pods, Slurm, Open MPI), or anywhere with
`--coordinator HOST:PORT --num-processes N --process-id I`; the workdir is a folder that all of them see.
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
    """Train together with the processes that JAX finds by itself."""
    coordinator: str | None = None
    """Train together with others: HOST:PORT of process 0."""
    num_processes: int | None = None
    """How many processes train together."""
    process_id: int | None = None
    """Which of them this is, from 0."""


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
