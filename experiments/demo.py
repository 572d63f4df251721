"""Does memory help? Train the same GPT with and without it, at equal parameters, and compare. About five minutes.

`python experiments/demo.py --help` prints the options; `memgpt-jax demo` is the same command.
"""

from memgpt_jax.studies.commands.demo import main

if __name__ == "__main__":
    raise SystemExit(main())
