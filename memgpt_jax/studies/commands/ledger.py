"""Measure the claims of the ledger: `LEDGER.md` and `ledger.json`, each claim with its commands.

    memgpt-jax ledger --tier cpu
    memgpt-jax ledger convolution_binds bptt_depth --output LEDGER.md

The claims are in `memgpt_jax/studies/claims.py`. Finished runs are read back, an interrupted run is resumed, and claims
that were measured earlier stay in the ledger; remove the folder of a run to train it again. A claim that has changed
since counts as not measured, and a record of fewer of its seeds does not replace one of more. Exit code: 1 if a
requested claim does not hold.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from memgpt_jax.files.replacement import replace_file
from memgpt_jax.studies.claims import CLAIMS
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments
from memgpt_jax.studies.ledger import Claim, Tier, is_current, markdown, record, run_claim, seeds_of
from memgpt_jax.training import RunError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of claims."""
    tier: Tier | None = None
    """Measure all claims of a tier: `cpu` (under 2 minutes each on two cores), `cpu-long` (under 30 minutes), `gpu`
    (under 10 minutes on one GPU)."""
    seeds: tuple[int, ...] | None = None
    """Seeds; default: those of each claim."""
    workdir: Path = Path("runs/ledger")
    """Folder of the runs."""
    output: Path | None = None
    """The ledger; `ledger.json` goes beside it. Default: WORKDIR/LEDGER.md."""

    def claims(self) -> list[Claim]:
        """The requested claims; `ValueError` if there are none or a name is unknown."""
        known = {claim.name: claim for claim in CLAIMS}
        for name in self.names:
            if name not in known:
                raise ValueError(f"there is no claim {name!r}; valid: {', '.join(known)}")
        chosen = [claim for claim in CLAIMS if claim.name in self.names or claim.tier == self.tier]
        if not chosen:
            listed = "\n".join(f"  {claim.name} ({claim.tier}): {claim.text}" for claim in CLAIMS)
            raise ValueError(f"name claims or a tier; the claims are:\n{listed}")
        return chosen if self.seeds is None else [dataclasses.replace(claim, seeds=self.seeds) for claim in chosen]


def earlier(path: Path) -> dict[str, dict[str, Any]]:
    """Records of an earlier ledger, by name, for claims that still exist."""
    records = json.loads(path.read_text()) if path.exists() else []
    return {entry["name"]: entry for entry in records if entry["name"] in {claim.name for claim in CLAIMS}}


def replaces(entry: dict[str, Any], before: dict[str, Any] | None) -> bool:
    """Whether a record replaces the earlier one of its claim: that one is of fewer seeds or of another claim."""
    (claim,) = (claim for claim in CLAIMS if claim.name == entry["name"])
    if before is None or not is_current(claim, before):
        return True
    return not seeds_of(claim, entry) < seeds_of(claim, before)


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    arguments, console = parse_arguments(Arguments, __doc__, argv), Console()
    output = arguments.output or arguments.workdir / "LEDGER.md"
    claims = arguments.claims()
    for case in (case for claim in claims for case in claim.cases):
        case.reading(0)  # refuse wrong names and overrides before the first run
    output.parent.mkdir(parents=True, exist_ok=True)
    records, failed = earlier(output.parent / "ledger.json"), []
    columns = (MofNCompleteColumn(), BarColumn(bar_width=16), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=sum(len(claim.cases) * len(claim.seeds) for claim in claims))

        def advance(name: str, value: float | None) -> None:
            progress.update(bar, description=name, advance=int(value is not None))
            if value is not None:
                console.print(f"{name}: {'error' if math.isnan(value) else f'{value:.4f}'}")

        for claim in claims:
            entry = record(run_claim(claim, arguments.workdir, advance), arguments.workdir)
            if replaces(entry, records.get(claim.name)):
                records[claim.name] = entry
            else:
                console.print(f"{claim.name}: the ledger keeps its record, which has more seeds")
            replace_file(output.parent / "ledger.json", json.dumps(list(records.values()), indent=2) + "\n")
            replace_file(output, markdown(CLAIMS, records))
            console.print(f"[bold]{claim.name}: {'holds' if entry['holds'] else 'failed'}[/bold]")
            for reason in entry["reasons"]:
                console.print(f"  {reason}", markup=False)
            failed += [claim.name] * (not entry["holds"])
    console.print(f"{output}: {len(claims) - len(failed)} of {len(claims)} claims hold")
    if failed:
        raise SystemExit(1)
