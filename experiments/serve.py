"""Serve a trained or pretrained model over HTTP, in the form of OpenAI's API.

`python experiments/serve.py --help` prints the options; `memgpt-jax serve` is the same command.
"""

from memgpt_jax.studies.commands.serve import main

if __name__ == "__main__":
    raise SystemExit(main())
