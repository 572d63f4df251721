"""Predict with a trained run: next tokens, masked tokens, or the answers of a task, one JSON object per line.

`python experiments/predict.py --help` prints the options; `memgpt-jax predict` is the same command.
"""

from memgpt_jax.studies.commands.predict import main

if __name__ == "__main__":
    raise SystemExit(main())
