"""The entry point `memgpt-jax COMMAND ...`."""

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version

COMMANDS = {
    "train": "train a config in a folder, or resume it",
    "evaluate": "evaluate runs on held-out data",
    "zero_shot": "evaluate a pretrained model on held-out data, without training",
    "generate": "continue a prompt with a trained model",
    "predict": "predict tokens, masked tokens or the answers of a task",
    "serve": "serve a model over HTTP, in the form of OpenAI's API",
    "inspect_memory": "show what the memories of a model do with a text, on one page",
    "ablate": "train and evaluate every combination of a sweep",
    "adapt": "give a pretrained model a memory, and measure the gain",
    "needle": "ask trained runs for facts after long streams of text",
    "babilong": "ask trained runs bAbI questions in long rows of text",
    "benchmark": "measure speed and memory side by side",
    "ledger": "measure the claims of the ledger",
    "verify": "verify the checksums of runs, sessions, corpora and models",
    "demo": "train with and without memory, and compare",
}
"""The commands and what each does."""
SHORT = {"bench": "benchmark", "inspect": "inspect_memory"}


def usage() -> str:
    """The help text."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: memgpt-jax COMMAND [options]",
            "",
            *lines,
            "",
            "`memgpt-jax COMMAND --help` prints the options of a command; `memgpt-jax --version` the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 2 where the command line is wrong.

    Args:
        argv: the words after `memgpt-jax`; default: those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = SHORT.get(words[0], words[0]) if words else "--help"
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(version("memgpt-jax"))
        return 0
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}; valid: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    sys.argv = [f"memgpt-jax {name}", *words[1:]]  # the program's name in help texts and messages
    return importlib.import_module(f"memgpt_jax.studies.commands.{name}").main(words[1:]) or 0
