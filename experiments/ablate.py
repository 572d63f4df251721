"""Train and evaluate every combination of a sweep: one folder per run, one CSV, plots with seeds as error bars.

`python experiments/ablate.py --help` prints the options; `memgpt-jax ablate` is the same command.
"""

from memgpt_jax.studies.commands.ablate import main

if __name__ == "__main__":
    raise SystemExit(main())
