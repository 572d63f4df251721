"""Sphinx extension: measured figures as tables, read from the ledger's and the benchmarks' JSON at build time.

Directives:

    {ledger} NAME                 the cases of a claim, with the commands that measured them
    {benchmark} WORD WORD ...     the benchmark whose command holds all words
    {mechanism} NAME              what is measured of a memory mechanism

The pages docs/results/LEDGER.md and docs/results/BENCHMARKS.md are written together with the JSON files.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parent / "results"
LEDGER, BENCHMARKS = RESULTS / "ledger.json", RESULTS / "benchmarks.json"
WIDE_TRAINING = ("train benchmark --model.d_model 768", "model.memory=none,kv,knn")
WIDE_RECURRENT = ("train benchmark --model.d_model 768", "model.memory=none,ntm,dnc")
DECODING = ("decode benchmark",)


def records() -> dict[str, dict[str, Any]]:
    """The measured claims of the ledger, by name."""
    return {entry["name"]: entry for entry in json.loads(LEDGER.read_text())}


def benchmarks() -> dict[str, dict[str, Any]]:
    """The benchmarks, by command."""
    return json.loads(BENCHMARKS.read_text())


def find_benchmark(words: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """The only benchmark whose command holds all words, with its command.

    Raises:
        ExtensionError: no benchmark holds them, or several do.
    """
    words = list(words)
    found = [(command, entry) for command, entry in benchmarks().items() if all(word in command for word in words)]
    if len(found) != 1:
        raise ExtensionError(f"{len(found)} benchmarks hold {words}, expected 1; commands: {', '.join(benchmarks())}")
    return found[0]


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; numbers are right-aligned, the first column is left-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shell(commands: Iterable[str]) -> str:
    """A Markdown block of distinct shell commands."""
    return "\n".join(["```sh", *dict.fromkeys(commands), "```"])


def number(value: Any) -> str:
    """A cell: integers with thousands separators, fractions with three significant digits."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"{int(value):,}" if value.isdecimal() else value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def measured(case: dict[str, Any]) -> str:
    """Mean and standard deviation over seeds, with each seed's value."""
    if case["mean"] is None:
        return "not measured"
    spread = "" if case["spread"] is None else f" ± {case['spread']:.3f}"
    values = ", ".join(f"{value:.3f}" for value in case["measured"].values())
    return f"{case['mean']:.3f}{spread} ({values})"


def ledger(name: str) -> str:
    """The cases of a claim and their commands.

    Raises:
        ExtensionError: the ledger has no such claim.
    """
    claims = records()
    if name not in claims:
        raise ExtensionError(f"the ledger has no measured claim {name!r}; it has {', '.join(claims)}")
    claim = claims[name]
    header = ["case", "expected", f"{claim['metric'].replace('_', ' ')}: mean ± s.d. (each seed)", "state bytes"]
    rows = [
        [case["case"], case["expected"] or "", measured(case), number(case["state_bytes"])] for case in claim["cases"]
    ]
    verdict = "The claim holds." if claim["holds"] else "**The claim failed**: " + "; ".join(claim["reasons"]) + "."
    command = f"python experiments/ledger.py {name}"
    return "\n\n".join([f"{claim['text']} {verdict}", table(header, rows), shell([command])])


def benchmark(words: Iterable[str]) -> str:
    """The table of a benchmark, its machine and its command."""
    command, entry = find_benchmark(words)
    columns = list(dict.fromkeys(name for row in entry["rows"] for name in row))
    rows = [[number(row.get(name)) for name in columns] for row in entry["rows"]]
    return "\n\n".join([table(columns, rows), f"Machine: {entry['machine']}.", shell([command])])


def recall(name: str) -> str:
    """The mechanism's case of the recall claim."""
    claim = records()["mechanisms_recall"]
    case = next(case for case in claim["cases"] if case["case"] == name)
    return "\n\n".join(
        [
            "**Recall from outside of the window** (8 pairs, 350 steps, chance 0.016; seeds 0, 1, 2):",
            table(
                ["accuracy", "state bytes per row and layer", "seconds for three seeds, one shared core"],
                [[measured(case), number(case["state_bytes"]), number(case["seconds"])]],
            ),
            shell(["python experiments/ledger.py mechanisms_recall"]),
        ]
    )


def speed(name: str, words: Iterable[str], title: str) -> str:
    """The mechanism's rows of a benchmark; an empty text where it has none."""
    command, entry = find_benchmark(words)
    columns = {
        "model.memory.memory_size": "`memory_size`",
        "relative speed": "speed relative to `none`",
        "by multiply-adds": "predicted from matmuls",
        "tokens/s": "tokens/s",
        "state bytes": "state bytes per row and layer",
        "temporary bytes": "temporary bytes",
    }
    rows = [row for row in entry["rows"] if row.get("model.memory") == name]
    if not rows:
        return ""
    columns = {key: label for key, label in columns.items() if any(key in row for row in rows)}
    cells = table(list(columns.values()), [[number(row.get(key)) for key in columns] for row in rows])
    return "\n\n".join([f"**{title}** ({entry['machine']}):", cells, shell([command])])


def mechanism(name: str) -> str:
    """What is measured of a mechanism: recall, training speed, decoding speed."""
    training = "Training, width 768, 4 layers, rows of 1,024 tokens"
    parts = [
        recall(name),
        speed(name, WIDE_TRAINING, training),
        speed(name, WIDE_RECURRENT, training + ", on a busy machine"),
        speed(name, DECODING, "Decoding token by token after 1,024 tokens, 6.8 million parameters without memory"),
    ]
    return "\n\n".join(part for part in parts if part)


class Figures(SphinxDirective):
    """A table made of the directive's argument."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        for path in (LEDGER, BENCHMARKS):
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(self.markdown(self.arguments[0]))


class Ledger(Figures):
    markdown = staticmethod(ledger)


class Mechanism(Figures):
    markdown = staticmethod(mechanism)


class Benchmark(Figures):
    def markdown(self, argument):
        return benchmark(argument.split())


def setup(app):
    app.add_directive("ledger", Ledger)
    app.add_directive("mechanism", Mechanism)
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True}
