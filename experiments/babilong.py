"""Ask trained runs in ever longer rows of held-out text: a table, a JSON file and a plot.

`python experiments/babilong.py --help` prints the options; `memgpt-jax babilong` is the same command.
"""

from memgpt_jax.studies.commands.babilong import main

if __name__ == "__main__":
    raise SystemExit(main())
