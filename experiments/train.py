"""Train a config in a folder, then evaluate it; the same command continues after any interruption.

`python experiments/train.py --help` prints the options; `memgpt-jax train` is the same command.
"""

from memgpt_jax.studies.commands.train import main

if __name__ == "__main__":
    raise SystemExit(main())
