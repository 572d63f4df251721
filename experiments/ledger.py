"""Measure what is claimed of the models: `LEDGER.md` and `ledger.json`, each claim with its commands.

`python experiments/ledger.py --help` prints the options; `memgpt-jax ledger` is the same command.
"""

from memgpt_jax.studies.commands.ledger import main

if __name__ == "__main__":
    raise SystemExit(main())
