"""Train a config in a folder, then evaluate it; the same command goes on after any interruption.

python experiments/train.py quickstart --workdir runs/quickstart --model.memory.memory_size 512
"""

from dataclasses import dataclass
from pathlib import Path

from memgpt_jax.command_line import one_line_errors, parse
from memgpt_jax.training import RunError, train


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this script."""

    workdir: Path
    """Folder of the run: checkpoints, tokenizer, metrics.jsonl, TensorBoard files, evaluation.json."""


@one_line_errors(RunError)
def main() -> None:
    config, arguments = parse(Arguments, __doc__)
    results = train(config, arguments.workdir)
    figures = {name: value for name, value in results["evaluation"].items() if isinstance(value, float)}
    print(f"{arguments.workdir}: finished {results['step']} steps; held-out", end=" ")
    print(", ".join(f"{name} {value:.4f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
