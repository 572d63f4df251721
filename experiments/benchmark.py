"""Speed and memory, measured side by side: table, plot, `benchmarks.json` and `BENCHMARKS.md`.

`python experiments/benchmark.py --help` prints the options; `memgpt-jax benchmark` is the same command.
"""

from memgpt_jax.studies.commands.benchmark import main

if __name__ == "__main__":
    raise SystemExit(main())
