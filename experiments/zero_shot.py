"""Evaluate the pretrained model of a config on its held-out data, without training.

`python experiments/zero_shot.py --help` prints the options; `memgpt-jax zero_shot` is the same command.
"""

from memgpt_jax.studies.commands.zero_shot import main

if __name__ == "__main__":
    raise SystemExit(main())
