"""Evaluate runs on held-out documents: a table, a JSON file and a plot, side by side.

`python experiments/evaluate.py --help` prints the options; `memgpt-jax evaluate` is the same command.
"""

from memgpt_jax.studies.commands.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
