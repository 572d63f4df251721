"""Rows of measurements: printed as a table, saved as JSON, and written to `BENCHMARKS.md`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgpt_jax.files.replacement import replace_file
from memgpt_jax.studies.benchmark.interleaving import Case, Medians
from memgpt_jax.studies.machine import describe_machine

Row = dict[str, Any]


def measured_row(case: Case, times: Medians, probe: Case, probe_times: Medians) -> Row:
    """Speed of a case, and its share of the peak rate that the probe reached in the same rounds."""
    row: Row = {"tokens/s": case.tokens / times.whole, "host, ms": 1e3 * times.host}
    if case.flops:
        row["share of matmul rate"] = (case.flops / times.whole) / (probe.flops / probe_times.whole)
    if case.bytes_moved:
        row["share of memory rate"] = (case.bytes_moved / times.whole) / (probe.bytes_moved / probe_times.whole)
    return row | dict(case.facts)


def add_section(folder: Path, command: str, about: str, rows: Sequence[Row]) -> None:
    """Replace the rows of a command in `FOLDER/benchmarks.json`, and write `FOLDER/BENCHMARKS.md`."""
    path = folder / "benchmarks.json"
    sections = json.loads(path.read_text()) if path.exists() else {}
    sections[command] = {"about": about, "machine": describe_machine(), "rows": list(rows)}
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(sections, indent=1) + "\n")
    replace_file(folder / "BENCHMARKS.md", markdown(sections))


def markdown(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of `BENCHMARKS.md`: for each command its purpose, the machine and the table."""
    lines = [
        "# Benchmarks",
        "",
        "Each table is one command. `relative speed` is against a reference that took turns with the case; `tokens/s`",
        "of different rows are of different times on a machine with other work, and must not be compared.",
    ]
    for command, section in sections.items():
        lines += ["", section["about"], "", "```sh", command, "```", "", f"Measured on: {section['machine']}.", ""]
        lines.append(table(section["rows"]))
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table; the columns are all keys in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """A value as text: thousands separators, three significant digits of fractions."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
