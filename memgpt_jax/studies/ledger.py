"""Claims about trained models, each measured by one command, and the records of the measurements.

A claim has cases. A case is a config with overrides that is trained and measured once per seed. The metric of a case
may be required to lie within a bound, and the metric may be required to rise or fall from case to case, for each seed.
"""

import dataclasses
import hashlib
import itertools
import json
import shlex
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from memgpt_jax.config.checks import check, check_literals, instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import to_json
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.evaluation import evaluate, recall_along_stream
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.interop.adapters import fingerprint
from memgpt_jax.memory import layer_memory_bytes
from memgpt_jax.ops.trees import named_leaves
from memgpt_jax.studies.command_line import assignments, load_config, override, sweep_words
from memgpt_jax.studies.machine import describe_machine
from memgpt_jax.studies.runs import reopen, run_name
from memgpt_jax.training import RunError, train

Tier = Literal["cpu", "cpu-long", "gpu"]
TIERS = {
    "cpu": "under 2 minutes each on two cores",
    "cpu-long": "under 30 minutes each on two cores",
    "gpu": "under 10 minutes each on one GPU",
}


class Bound(NamedTuple):
    """low <= value <= high."""

    low: float = float("-inf")
    high: float = float("inf")

    def __str__(self):
        if self.low == float("-inf"):
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.high == float("inf") else f"{self.low:g} to {self.high:g}"


def at_least(value: float) -> Bound:
    """value or more."""
    return Bound(low=value)


def at_most(value: float) -> Bound:
    """value or less."""
    return Bound(high=value)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case of a claim: the config that is trained, and how the run is measured."""

    label: str
    """Its name in the ledger, unique within the claim."""
    config: str
    """Name of a config of `configs/`, or the path of one."""
    overrides: tuple[str, ...] = ()
    """Changes of the config, each `field=value`."""
    change: tuple[str, ...] = ()
    """Changes of the run's config for the measurement, as in `memgpt-jax evaluate --change`."""
    needles_after: int | None = None
    """Ask for needles after this number of tokens of held-out text, as `memgpt-jax needle` does."""
    expected: Bound | None = None
    """Bound of the metric for each seed; None: the case is a comparison."""
    metric: str | None = None
    """The metric of this case; default: the metric of the claim."""

    def words(self, seed: int) -> list[str]:
        """The overrides and the seed as words of the command line."""
        return sweep_words(assignments(self.overrides) | {"seed": str(seed)})

    def experiment(self, seed: int) -> ExperimentConfig:
        """The config of the training run."""
        return override(load_config(self.config), self.words(seed))

    def reading(self, seed: int) -> ExperimentConfig:
        """The config used for measuring."""
        return override(self.experiment(seed), sweep_words(assignments(self.change)))

    def workdir(self, root: Path, seed: int | str) -> Path:
        """The folder of a run. Cases with equal training configs share it; a shell finds no variable in its name."""
        overrides = {field: value.replace("$", "") for field, value in assignments(self.overrides).items()}
        return root / ",".join([Path(self.config).stem, run_name(overrides | {"seed": str(seed)})])

    def command(self, root: Path, seeds: Sequence[int]) -> str:
        """The shell command that trains and measures all seeds."""
        workdir = f'"{self.workdir(root, "$s")}"'
        words = shlex.join([self.config, *sweep_words(assignments(self.overrides))])
        change = f" --change {shlex.join(self.change)}" if self.change else ""
        steps = [f"python experiments/train.py {words} --seed $s --workdir {workdir}"]
        if self.needles_after is not None:
            needles = instance_of(self.reading(0).data, NeedleConfig, "data").num_needles
            needles = f"--lengths {self.needles_after} --num-needles {needles}"
            steps.append(f"python experiments/needle.py {workdir} {needles}{change}")
        elif self.change:
            steps.append(f"python experiments/evaluate.py {workdir}{change}")
        return f"for s in {' '.join(map(str, seeds))}; do {' && '.join(steps)}; done"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement about trained models, and the cases that test it."""

    name: str
    """Unique name, used on the command line."""
    text: str
    """The claim, in a sentence."""
    source: str
    """Its source: a paper with its section, or "ours"."""
    tier: Tier
    """Its duration (see `TIERS`)."""
    metric: str
    """A number in the evaluation's results, such as `accuracy`, `bits_per_byte` or `groups.NAME`."""
    cases: tuple[Case, ...]
    """The cases, in order."""
    order: Literal["rises", "falls"] | None = None
    """Whether the metric rises or falls from case to case, for each seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of parameters and data order."""

    def __post_init__(self) -> None:
        check_literals(self)
        judged = (self.order is not None and len(self.cases) > 1) or any(case.expected for case in self.cases)
        alike = self.order is None or all(case.metric in (None, self.metric) for case in self.cases)
        check(alike, f"{self.name}: an order compares one metric, so no case may have another than {self.metric}")
        check(bool(self.seeds), f"{self.name}: seeds is empty: give at least one")
        check(judged, f"{self.name}: a claim needs a case with `expected`, or an order of several cases")
        labels = [case.label for case in self.cases]
        check(len(set(labels)) == len(labels), f"{self.name}: labels of cases must be distinct, got {labels}")

    @property
    def digest(self) -> str:
        """A digest of what is measured: the metric, the order and the cases with their bounds; not of the seeds."""
        return digest(self.metric, self.order, *map(dataclasses.asdict, self.cases))


def digest(*values: Any) -> str:
    """A digest of JSON values."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


class Measured(NamedTuple):
    """One seed of a case."""

    value: float
    """Value of the metric."""
    state_bytes: int
    """Bytes of one layer's memory for one row (`memgpt_jax.memory.layer_memory_bytes`), while measuring."""
    seconds: float | None
    """Wall time of training and measuring in seconds, summed over interruptions; None: unknown, the run was copied
    here."""
    machine: str | None
    """The machine that trained it; None: unknown."""


@dataclass
class Outcome:
    """Measurements of a claim. The claim holds if `reasons()` is empty."""

    claim: Claim
    measured: dict[tuple[str, int], Measured] = field(default_factory=dict)
    """Measurements by (label of the case, seed)."""
    errors: list[str] = field(default_factory=list)
    """Messages of runs that could not be measured."""

    def reasons(self) -> list[str]:
        """The reasons why the claim does not hold."""
        claim, reasons = self.claim, list(self.errors)

        def value(case: Case, seed: int) -> float:
            return self.measured[case.label, seed].value

        for case, seed in itertools.product(claim.cases, claim.seeds):
            if case.expected and (case.label, seed) in self.measured:
                low, high = case.expected
                if not low <= value(case, seed) <= high:  # false for NaN too
                    reasons.append(f"{case.label}, seed {seed}: {value(case, seed):.4f} is not {case.expected}")
        for (one, other), seed in itertools.product(itertools.pairwise(claim.cases), claim.seeds):
            if claim.order and {(one.label, seed), (other.label, seed)} <= self.measured.keys():
                step = value(other, seed) - value(one, seed)
                if not (step > 0 if claim.order == "rises" else step < 0):
                    reasons.append(f"from {one.label} to {other.label}, seed {seed}: {step:+.4f}")
        return reasons


def metric_of(result: dict[str, Any], metric: str) -> float:
    """A number in the results of an evaluation; `a.b` is entry b of the group a. `ValueError` if it is missing."""
    value: Any = result
    for name in metric.split("."):
        if not isinstance(value, dict) or name not in value:
            raise ValueError(f"the evaluation has no {metric}; it has {', '.join(result)}")
        value = value[name]
    if value is None:
        raise ValueError(f"the evaluation could not measure {metric}")
    return float(value)


def train_in(config: ExperimentConfig, workdir: Path) -> tuple[dict[str, Any], float | None, str | None]:
    """Train or resume a run; returns (results of the evaluation, wall time in seconds, machine).

    The time is saved in `timing.json` and accumulates over interruptions, except for SIGKILL.
    """
    path, start = workdir / "timing.json", time.monotonic()
    timing = json.loads(path.read_text()) if path.exists() else {"seconds": 0.0, "machine": describe_machine()}
    if (workdir / "evaluation.json").exists():
        timing = timing if path.exists() else {"seconds": None, "machine": None}
        return train(config, workdir, print_progress=False)["evaluation"], timing["seconds"], timing["machine"]
    try:
        result = train(config, workdir, print_progress=False)["evaluation"]
    finally:
        timing["seconds"] += time.monotonic() - start
        if (workdir / "checkpoints").exists():
            replace_file(path, json.dumps(timing))
    return result, timing["seconds"], timing["machine"]


def read_again(case: Case, workdir: Path) -> tuple[dict[str, Any], float]:
    """Evaluate a trained run with the changes of the case; returns (results, seconds).

    They are cached in the folder of the run, and measured again if its parameters or the config of the reading differ.
    """
    after = {} if case.needles_after is None else {"needles_after": str(case.needles_after)}
    path = workdir / f"ledger {run_name(assignments(case.change) | after)}.json"
    start, opened = time.monotonic(), reopen(workdir, case.change)
    source = digest(fingerprint(named_leaves(opened.params)), to_json(opened.config), case.needles_after)
    saved = json.loads(path.read_text()) if path.exists() else {}
    if saved.get("source") != source:
        if case.needles_after is None:
            result = evaluate(opened.config, opened.params, opened.tokenizer)
        else:
            (result,) = recall_along_stream(opened.config, opened.params, [case.needles_after], opened.tokenizer)
        saved = {"result": result, "seconds": time.monotonic() - start, "source": source}
        replace_file(path, json.dumps(saved))
    return saved["result"], saved["seconds"]


def measure(case: Case, metric: str, seed: int, root: Path) -> Measured:
    """Train and measure one seed of a case. Finished parts are read from the folder, interrupted ones resumed.

    Raises:
        RunError, ValueError: the case cannot be trained or measured.
    """
    workdir = case.workdir(root, seed)
    result, seconds, where = train_in(case.experiment(seed), workdir)
    if case.change or case.needles_after is not None:
        result, more = read_again(case, workdir)
        seconds = None if seconds is None else seconds + more
    return Measured(metric_of(result, metric), layer_memory_bytes(case.reading(seed).model), seconds, where)


def run_claim(claim: Claim, root: Path, advance: Callable[[str, float | None], None]) -> Outcome:
    """Train and measure all cases and seeds of a claim; failures are added to the errors of the outcome.

    `advance` is called before each run with its name and None, and after it with its name and the metric (NaN: error).
    """
    outcome = Outcome(claim)
    for case, seed in itertools.product(claim.cases, claim.seeds):
        name = f"{claim.name}: {case.label}, seed {seed}"
        advance(name, None)
        try:
            outcome.measured[case.label, seed] = run = measure(case, case.metric or claim.metric, seed, root)
            advance(name, run.value)
        except (RunError, ValueError) as error:
            outcome.errors.append(f"{case.label}, seed {seed}: {error}")
            advance(name, float("nan"))
        jax.clear_caches()  # later runs do not use these compiled functions
    return outcome


def record(outcome: Outcome, root: Path) -> dict[str, Any]:
    """An outcome as JSON values."""
    claim, cases, reasons = outcome.claim, [], outcome.reasons()
    for case in claim.cases:
        runs = {
            seed: outcome.measured[case.label, seed] for seed in claim.seeds if (case.label, seed) in outcome.measured
        }
        values, seconds = [run.value for run in runs.values()], [run.seconds for run in runs.values()]
        known = [number for number in seconds if number is not None]
        cases.append(
            {
                "case": case.label,
                "metric": case.metric or claim.metric,
                "expected": str(case.expected) if case.expected else None,
                "measured": {str(seed): run.value for seed, run in runs.items()},
                "mean": statistics.mean(values) if values else None,
                "spread": statistics.stdev(values) if len(values) > 1 else None,
                "state_bytes": next((run.state_bytes for run in runs.values()), None),
                "seconds": None if len(known) < len(seconds) else sum(known),
                "machines": sorted({run.machine for run in runs.values() if run.machine}),
                "command": case.command(root, claim.seeds),
            }
        )
    about = {name: getattr(claim, name) for name in ("name", "text", "source", "tier", "metric", "order")}
    return about | {"digest": claim.digest, "holds": not reasons, "reasons": reasons, "cases": cases}


def is_current(claim: Claim, entry: dict[str, Any]) -> bool:
    """Whether a record is of the claim as it is now; so is one without a digest, of an earlier version."""
    return entry.get("digest", claim.digest) == claim.digest


def seeds_of(claim: Claim, entry: dict[str, Any]) -> set[int]:
    """The seeds of the claim that a record has measured in every case."""
    return set(claim.seeds).intersection(*({int(seed) for seed in case["measured"]} for case in entry["cases"]))


def result_of(claim: Claim, entry: dict[str, Any] | None) -> str:
    """The result of a claim in words, from its record, if there is one."""
    if entry is None or not is_current(claim, entry):
        return "not measured" if entry is None else "not measured as it is now"
    found, result = seeds_of(claim, entry), "holds" if entry["holds"] else "**failed**"
    return result if len(found) == len(claim.seeds) else f"{result} ({len(found)} of {len(claim.seeds)} seeds)"


def markdown(claims: Sequence[Claim], records: dict[str, dict[str, Any]]) -> str:
    """The text of `LEDGER.md`: a table of all claims, then the measurements and commands of each.

    Args:
        claims: all claims, in order.
        records: the results of `record`, by the name of the claim.
    """
    results = {claim.name: result_of(claim, records.get(claim.name)) for claim in claims}
    held = sum(result == "holds" for result in results.values())
    failed = sum(result.startswith("**failed**") for result in results.values())
    others = len(claims) - held - failed
    lines = [
        "# Ledger",
        "",
        f"{len(claims)} claims: {held} hold, {failed} failed, {others} not measured with all seeds.",
        "Each is measured by one command, `python experiments/ledger.py NAME`, and must hold for every seed.",
        f"Tiers: {'; '.join(f'`{tier}` {time}' for tier, time in TIERS.items())}.",
        "",
        "| claim | tier | result | source |",
        "|---|---|---|---|",
    ]
    for c in claims:
        title = f"[{c.name}](#{c.name})" if c.name in records else f"`{c.name}`"  # unmeasured claims have no section
        lines.append(f"| {title}: {c.text} | `{c.tier}` | {results[c.name]} | {c.source} |")
    for claim in claims:
        if claim.name in records:
            lines += _section(records[claim.name], results[claim.name])
    return "\n".join(lines) + "\n"


def _section(entry: dict[str, Any], result: str) -> list[str]:
    order = f" It {entry['order']} from case to case." if entry["order"] else ""
    lines = ["", f"## {entry['name']}", "", f"{entry['text']} ({entry['source']})", ""]
    lines += [f"Result: {result}. Tier: `{entry['tier']}`. Metric: `{entry['metric']}`.{order}", ""]
    lines += [f"- {reason}" for reason in entry["reasons"]] + [""] * bool(entry["reasons"])
    lines += [
        "| case | expected | measured, mean ± s.d. (each seed) | state bytes | seconds |",
        "|---|---|---|---|---|",
    ]
    for case in entry["cases"]:
        spread = "" if case["spread"] is None else f" ± {case['spread']:.4f}"
        values = ", ".join(f"{seed}: {value:.4f}" for seed, value in case["measured"].items())
        measured = "-" if case["mean"] is None else f"{case['mean']:.4f}{spread} ({values})"
        size, seconds = case["state_bytes"], case["seconds"]
        label = case["case"] if case["metric"] == entry["metric"] else f"{case['case']}: `{case['metric']}`"
        cells = [label, case["expected"] or "", measured, "-" if size is None else f"{size:,}"]
        lines.append(f"| {' | '.join(cells)} | {'not timed' if seconds is None else f'{seconds:.0f}'} |")
    machines = sorted({machine for case in entry["cases"] for machine in case["machines"]})
    lines += ["", f"Measured on: {'; '.join(machines) or 'unknown'}.", "", "```sh"]
    return [*lines, *dict.fromkeys(case["command"] for case in entry["cases"]), "```"]
