"""Continue a prompt with a trained model, its memory live while it writes.

`python experiments/generate.py --help` prints the options; `memgpt-jax generate` is the same command.
"""

from memgpt_jax.studies.commands.generate import main

if __name__ == "__main__":
    raise SystemExit(main())
