"""Show what the memories of a model do with a text, on one HTML page.

`python experiments/inspect_memory.py --help` prints the options; `memgpt-jax inspect` is the same command.
"""

from memgpt_jax.studies.commands.inspect_memory import main

if __name__ == "__main__":
    raise SystemExit(main())
