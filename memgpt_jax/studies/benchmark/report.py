"""What was measured, as rows of a table that is printed, kept as JSON, and written to `BENCHMARKS.md`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgpt_jax.files.replacement import replace_file
from memgpt_jax.studies.benchmark.turns import Candidate, Medians
from memgpt_jax.studies.machine import machine

Row = dict[str, Any]


def measured_row(candidate: Candidate, times: Medians, probe: Candidate, probe_times: Medians) -> Row:
    """Speed, and its share of what the probe reached in the same turns."""
    row: Row = {"tokens/s": candidate.tokens / times.whole, "host, ms": 1e3 * times.host}
    if candidate.flops:
        row["share of matmul rate"] = (candidate.flops / times.whole) / (probe.flops / probe_times.whole)
    if candidate.bytes_moved:
        row["share of memory rate"] = (candidate.bytes_moved / times.whole) / (probe.bytes_moved / probe_times.whole)
    return row | dict(candidate.facts)


def add_section(folder: Path, command: str, about: str, rows: Sequence[Row]) -> None:
    """Put the rows of a command into `FOLDER/benchmarks.json`, in place of its earlier ones, and write both files."""
    path = folder / "benchmarks.json"
    sections = json.loads(path.read_text()) if path.exists() else {}
    sections[command] = {"about": about, "machine": machine(), "rows": list(rows)}
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(sections, indent=1) + "\n")
    replace_file(folder / "BENCHMARKS.md", markdown(sections))


def markdown(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """`BENCHMARKS.md`: for each command what it measures, where, and its table."""
    lines = [
        "# Benchmarks",
        "",
        "Each table is one command, whose candidates took turns; speeds are comparable within a table alone.",
    ]
    for command, section in sections.items():
        lines += ["", section["about"], "", "```sh", command, "```", "", f"Measured on: {section['machine']}.", ""]
        lines.append(table(section["rows"]))
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Rows as a table of Markdown; its columns are all keys, in the order in which they appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """A value as people read it: thousands apart, three digits of a fraction."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
