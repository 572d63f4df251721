"""Verify the checksums of the files of runs, sessions, tokenized corpora, models and tokenizers.

`python experiments/verify.py --help` prints the options; `memgpt-jax verify` is the same command.
"""

from memgpt_jax.studies.commands.verify import main

if __name__ == "__main__":
    raise SystemExit(main())
