"""Ask trained runs for needles after ever longer streams of held-out text: a table, a JSON file and a plot.

`python experiments/needle.py --help` prints the options; `memgpt-jax needle` is the same command.
"""

from memgpt_jax.studies.commands.needle import main

if __name__ == "__main__":
    raise SystemExit(main())
