"""Give a pretrained model a memory, train it, and measure what it makes up for: table, plot and `adapt.json`.

`python experiments/adapt.py --help` prints the options; `memgpt-jax adapt` is the same command.
"""

from memgpt_jax.studies.commands.adapt import main

if __name__ == "__main__":
    raise SystemExit(main())
