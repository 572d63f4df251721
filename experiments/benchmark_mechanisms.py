"""Training speed of every memory mechanism, side by side with the same model without memory: table, JSON and plot.

    python experiments/benchmark_mechanisms.py --sizes 64 1024 4096

For each mechanism and size, its training step and that of `none` take turns; the ratio of the median times counts.
"""

import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
from benchmark import BASE, jax_candidate
from rich.console import Console
from rich.progress import track
from rich.table import Table

import memgpt_jax as mg
from memgpt_jax.command_line import parse_arguments
from memgpt_jax.plots import plot_ablation

LENGTH = 4 * BASE.window_size  # tokens of a row
TOO_SLOW = 0.1  # a mechanism that falls below this speed is not measured at larger sizes


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this script."""

    sizes: tuple[int, ...] = (64, 256, 1024, 4096)
    """Values of `memory_size`."""
    mechanisms: tuple[str, ...] = tuple(name for name in mg.MEMORIES if name != "none")
    """Names of mechanisms; default: all."""
    batch_size: int = 4
    """Rows of a step, of 2,048 tokens each."""
    rounds: int = 3
    """Turns of each candidate; a turn is four steps, of which the first does not count."""
    output: Path = Path("runs/benchmark_mechanisms")
    """Folder of `speed.json` and `speed.png`."""

    def __post_init__(self):
        unknown = set(self.mechanisms) - set(mg.MEMORIES)
        if unknown:
            raise ValueError(f"no mechanism {', '.join(sorted(unknown))}; valid: {', '.join(mg.MEMORIES)}")


def seconds_of_turn(run: Callable[[], None]) -> list[float]:
    """Times of three steps, after one in which memory that the last candidate gave back is fetched again."""
    run()
    times = [time.perf_counter()]
    for _ in range(3):
        run()
        times.append(time.perf_counter())
    return [end - start for start, end in itertools.pairwise(times)]


def relative_speed(run: Callable[[], None], reference: Callable[[], None], rounds: int) -> float:
    """How fast `run` is in units of `reference`."""
    times, reference_times = [], []
    for _ in range(rounds):
        reference_times += seconds_of_turn(reference)
        times += seconds_of_turn(run)
    return statistics.median(reference_times) / statistics.median(times)


def main() -> None:
    arguments = parse_arguments(Arguments, __doc__)
    none = jax_candidate(dataclasses.replace(BASE, memory=mg.NoMemoryConfig()), LENGTH, arguments.batch_size)
    results = {}
    for name in track(arguments.mechanisms, description="mechanisms"):
        for size in sorted(arguments.sizes):
            config = dataclasses.replace(BASE, memory=mg.MEMORIES[name][0](memory_size=size))
            speed = relative_speed(jax_candidate(config, LENGTH, arguments.batch_size), none, arguments.rounds)
            results.setdefault(name, {})[size] = {"state_bytes": mg.state_bytes(config), "relative_speed": speed}
            jax.clear_caches()
            if speed < TOO_SLOW:
                break
    table = Table("speed relative to none", *(f"{size:,}" for size in sorted(arguments.sizes)))
    for name, sizes in results.items():
        table.add_row(name, *(f"{entry['relative_speed']:.2f}" for entry in sizes.values()))
    Console().print(table)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "speed.json").write_text(json.dumps(results, indent=2) + "\n")
    lines = {
        name: {f"{size:,}": [entry["relative_speed"]] for size, entry in sizes.items()}
        for name, sizes in results.items()
    }
    plot_ablation(lines, arguments.output / "speed.png", "memory_size", "training speed relative to none")


if __name__ == "__main__":
    main()
