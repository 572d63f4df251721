"""The ledger: what makes a claim hold or fail, how it is measured and resumed, and what is written."""

import dataclasses
import functools
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.files.sealed import seal, unseal
from memgpt_jax.models import MemoryLayer
from memgpt_jax.studies import ledger
from memgpt_jax.studies.claims import CLAIMS
from memgpt_jax.studies.command_line import assignments
from memgpt_jax.studies.commands import ledger as command
from memgpt_jax.studies.ledger import Bound, Case, Claim, Measured, Outcome, at_least, at_most
from memgpt_jax.training import RunError
from tests.laws.memories import difference

TINY = (
    "model.num_layers=1",
    "model.d_model=16",
    "model.memory.head_dim=8",
    "training.steps=3",
    "training.batch_size=2",
    "evaluation.num_batches=1",
)
CASE = Case(label="kv", config="recall", overrides=TINY, expected=at_least(0.0))


def claim(*cases, **changes) -> Claim:
    texts = {"name": "a_claim", "text": "It is so.", "source": "ours", "tier": "cpu", "metric": "accuracy"}
    return Claim(**texts | {"cases": cases or (CASE,), "seeds": (0, 1)} | changes)


def outcome(claimed: Claim, **values: list[float]) -> Outcome:
    """An outcome of which each case has measured one value for each seed."""
    measured = {
        (label, seed): Measured(value, 10, 1.0, "here")
        for label, seeds in values.items()
        for seed, value in zip(claimed.seeds, seeds, strict=True)
    }
    return Outcome(claimed, measured)


def case(label: str, expected=None) -> Case:
    return Case(label=label, config="recall", overrides=(f"model.memory={label}",), expected=expected)


@pytest.mark.parametrize(
    "bound, inside, outside, text",
    [
        (at_least(0.99), [0.99, 1.0], [0.98, float("nan")], "at least 0.99"),
        (at_most(0.2), [0.2, 0.0], [0.21, float("nan")], "at most 0.2"),
        (Bound(1.65, 2.15), [1.65, 2.15], [1.6, 2.2, float("nan")], "1.65 to 2.15"),
    ],
)
def test_a_bound_is_for_every_seed(bound, inside, outside, text):
    claimed = claim(case("kv", bound))
    assert str(bound) == text
    for value in inside:
        assert outcome(claimed, kv=[value, inside[0]]).reasons() == []
    for value in outside:
        (reason,) = outcome(claimed, kv=[inside[0], value]).reasons()
        assert reason == f"kv, seed 1: {value:.4f} is not {text}"


@pytest.mark.parametrize("order, sign", [("rises", 1), ("falls", -1)])
def test_an_order_is_for_every_seed(order, sign):
    claimed = claim(case("none"), case("kv"), order=order)
    low, high = [1.0, 2.0], [3.0, 4.0]
    first, second = (low, high) if sign > 0 else (high, low)
    assert outcome(claimed, none=first, kv=second).reasons() == []
    assert len(outcome(claimed, none=second, kv=first).reasons()) == 2
    assert outcome(claimed, none=[1.0, 1.0], kv=[1.0 + sign, 1.0]).reasons() == ["from none to kv, seed 1: +0.0000"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cases": (case("kv"),)}, "needs a case with `expected`, or an order"),
        ({"cases": (case("kv"),), "order": "falls"}, "needs a case with `expected`, or an order of several"),
        ({"cases": (CASE, CASE)}, "labels of cases must be distinct"),
        ({"seeds": ()}, "a_claim: seeds is empty: give at least one"),
        ({"order": "up"}, "order must be one of 'rises', 'falls', None, got 'up'"),
        ({"tier": "tpu"}, "tier must be one of 'cpu', 'cpu-long', 'gpu', got 'tpu'"),
    ],
)
def test_claims_without_a_condition_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        claim(**changes)


AGAIN = dataclasses.replace(CASE, label="read again", change=("evaluation.num_batches=2",))
RUN = "recall,{}".format(",".join([*TINY, "seed=3"]))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A claim about one run of three steps, the folder where it was measured, its outcome, and what was reported."""
    claimed, folder, told = claim(CASE, AGAIN, seeds=(3,)), tmp_path_factory.mktemp("measured"), []
    return claimed, folder, ledger.run_claim(claimed, folder, lambda *words: told.append(words)), told


def test_a_claim_is_measured_once_and_read_back(measured, tmp_path, monkeypatch):
    claimed, folder, first, told = measured
    tmp_path = shutil.copytree(folder, tmp_path / "copy")
    entry = ledger.record(first, tmp_path)
    assert [words for words in told if words[1] is None] == [
        ("a_claim: kv, seed 3", None),
        ("a_claim: read again, seed 3", None),
    ]
    whole, twice = entry["cases"]
    assert entry["holds"] and not entry["reasons"] and whole["seconds"] > 0
    assert whole["measured"].keys() == {"3"} and 0 <= whole["mean"] <= 1 and whole["spread"] is None
    assert whole["machines"] == [ledger.describe_machine()] and "jax" in ledger.describe_machine()
    assert whole["state_bytes"] == 64 * (2 * 8 * 4 + 9) + 2 * 16 * 4
    assert len(list(tmp_path.iterdir())) == 1  # both cases are one run
    monkeypatch.setattr(ledger, "describe_machine", lambda: "another machine")
    monkeypatch.setattr(ledger, "evaluate", None)  # not called again
    assert ledger.record(ledger.run_claim(claimed, tmp_path, lambda *words: None), tmp_path) == entry
    (tmp_path / RUN / "timing.json").unlink()
    elsewhere = ledger.record(ledger.run_claim(claimed, tmp_path, lambda *words: None), tmp_path)
    assert elsewhere["cases"][0]["seconds"] is None and elsewhere["cases"][0]["machines"] == []
    assert "| not timed |" in ledger.markdown([claimed], {"a_claim": elsewhere})


def test_the_command_writes_a_claim_that_holds_and_one_that_failed(measured, tmp_path, memgpt, monkeypatch):
    tiny = claim(dataclasses.replace(CASE, expected=at_most(0.4)), name="tiny", seeds=(2, 3))
    monkeypatch.setattr(command, "CLAIMS", [tiny])
    shutil.copytree(measured[1] / RUN, tmp_path / RUN)
    words = ["tiny", "--seeds", "3", "--workdir", tmp_path]
    memgpt("ledger", *words)
    (entry,) = json.loads((tmp_path / "ledger.json").read_text())
    assert command.replaces(entry, None) and command.replaces(entry, entry)
    cases = [case | {"measured": {"2": 0.0, "3": 0.0}} for case in entry["cases"]]
    assert not command.replaces(entry, entry | {"cases": cases})
    assert command.replaces(entry, entry | {"cases": cases, "digest": "of another claim"})
    text = (tmp_path / "LEDGER.md").read_text()
    assert entry["holds"] and "## tiny" in text and "1 claims: 0 hold, 0 failed, 1 not measured" in text
    assert "Result: holds (1 of 2 seeds)." in text
    assert all(case["seconds"] > 0 and case["state_bytes"] > 0 for case in entry["cases"])

    evaluation = tmp_path / RUN / "evaluation.json"
    evaluation.write_text(seal(unseal(evaluation.read_text().strip()) | {"accuracy": 0.5}) + "\n")
    again = memgpt("ledger", *words, code=1)
    assert "0 of 1 claims hold" in " ".join(again.split())
    assert "kv, seed 3: 0.5000 is not at most 0.4" in (tmp_path / "LEDGER.md").read_text()


def test_a_claim_that_was_changed_is_not_measured(tmp_path):
    claimed = claim(case("none"), case("kv"), order="rises")
    entry = ledger.record(outcome(claimed, none=[0.0, 0.1], kv=[1.0, 0.9]), tmp_path)
    assert ledger.result_of(claimed, entry) == "holds"
    for changes in ({"order": "falls"}, {"metric": "loss"}, {"cases": (case("none"), case("kv", at_least(2.0)))}):
        changed = dataclasses.replace(claimed, **changes)
        assert ledger.result_of(changed, entry) == "not measured as it is now"
        assert "0 hold, 0 failed, 1 not measured" in ledger.markdown([changed], {"a_claim": entry})
    assert ledger.result_of(dataclasses.replace(claimed, text="It was so."), entry) == "holds"
    del entry["digest"]
    assert ledger.result_of(dataclasses.replace(claimed, metric="loss"), entry) == "holds"
    more = dataclasses.replace(claimed, seeds=(0, 1, 2))
    assert ledger.result_of(more, entry) == "holds (2 of 3 seeds)"


def test_a_second_reading_of_another_run_or_by_other_settings_is_repeated(measured, tmp_path, monkeypatch):
    workdir = shutil.copytree(measured[1] / RUN, tmp_path / "run")
    found = iter([{"accuracy": 0.1}, {"accuracy": 0.2}])
    monkeypatch.setattr(ledger, "evaluate", lambda *arguments: next(found))
    kept, seconds = ledger.read_again(AGAIN, workdir)
    assert kept != {"accuracy": 0.1} and seconds == ledger.read_again(AGAIN, workdir)[1]
    same = ledger.reopen(workdir, AGAIN.change)
    params = jax.tree.map(lambda leaf: leaf + 1, same.params)
    monkeypatch.setattr(ledger, "reopen", lambda *words: same._replace(params=params))
    assert [ledger.read_again(AGAIN, workdir)[0]["accuracy"] for _ in range(2)] == [0.1, 0.1]
    config = dataclasses.replace(same.config, seed=4)
    monkeypatch.setattr(ledger, "reopen", lambda *words: same._replace(config=config))
    assert [ledger.read_again(AGAIN, workdir)[0]["accuracy"] for _ in range(2)] == [0.2, 0.2]


def test_wall_time_adds_up_over_interruptions(tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    (workdir / "checkpoints").mkdir(parents=True)

    def stopped(*_, **__):
        raise SystemExit(0)

    monkeypatch.setattr(ledger, "train", stopped)
    monkeypatch.setattr(ledger.time, "monotonic", iter([0.0, 2.0, 5.0, 8.0]).__next__)
    with pytest.raises(SystemExit):
        ledger.train_in(None, workdir)
    monkeypatch.setattr(ledger, "train", lambda *_, **__: {"evaluation": {"accuracy": 1.0}})
    assert ledger.train_in(None, workdir) == ({"accuracy": 1.0}, 5.0, ledger.describe_machine())


def test_a_mistyped_override_fails_its_claim_alone(tmp_path):
    mistyped = Case(label="kv", config="recall", overrides=("model.memory.memorysize=3",), expected=at_least(0.0))
    wrong = claim(mistyped, seeds=(0,))
    result = ledger.run_claim(wrong, tmp_path, lambda *words: None)
    assert result.errors[0].startswith(
        "kv, seed 0: Unrecognized options: --model.memory.memorysize, 3 Perhaps you meant"
    )
    assert "--model.memory.memory-size" in result.errors[0]


def test_a_seed_that_cannot_be_measured_fails_and_the_others_are_measured(tmp_path, monkeypatch):
    def measure(case, metric, seed, root):
        if seed == 0:
            raise RunError("it is in use")
        return Measured(1.0, 10, 1.0, "here")

    monkeypatch.setattr(ledger, "measure", measure)
    result = ledger.run_claim(claim(), tmp_path, lambda *words: None)
    assert result.reasons() == ["kv, seed 0: it is in use"]
    entry = ledger.record(result, tmp_path)
    text = ledger.markdown([claim(), claim(name="another")], {"a_claim": entry})
    assert "2 claims: 0 hold, 1 failed, 1 not measured" in text
    assert "- kv, seed 0: it is in use" in text and "**failed**" in text and "| not measured |" in text
    assert "| kv | at least 0 | 1.0000 (1: 1.0000) | 10 | 1 |" in text


def test_metrics_are_found_by_name():
    result = {"accuracy": 0.5, "groups": {"qa1": 1}}
    assert ledger.metric_of(result, "accuracy") == 0.5 and ledger.metric_of(result, "groups.qa1") == 1.0
    with pytest.raises(ValueError, match=r"the evaluation has no groups.qa2; it has accuracy, groups"):
        ledger.metric_of(result, "groups.qa2")


def test_commands_are_what_a_user_types(tmp_path):
    again = Case(
        label="far", config="recall", overrides=("model.memory_layers=0 1",), change=("seed=4", "data.gap_length=2")
    )
    needle = Case(label="needle", config="needle", change=("data.num_needles=9",), needles_after=1000)
    script = "python() { printf '%s|' \"$@\"; echo; }; "

    def typed(case):
        words = ["bash", "-c", script + case.command(tmp_path, (0, 1))]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()

    lines = typed(again)
    folder = tmp_path / "recall,model.memory_layers=0_1,seed=1"
    assert again.workdir(tmp_path, 1) == folder
    assert lines[2] == f"experiments/train.py|recall|--model.memory_layers|0|1|--seed|1|--workdir|{folder}|"
    assert lines[3] == f"experiments/evaluate.py|{folder}|--change|seed=4|data.gap_length=2|"
    named = Case(label="named", config="babi", overrides=("data.path=$FOLDER/en",))
    assert typed(named)[0].endswith(f"|--data.path|$FOLDER/en|--seed|0|--workdir|{named.workdir(tmp_path, 0)}|")
    words = "--lengths|1000|--num-needles|9|--change|data.num_needles=9|"
    assert typed(needle)[1] == f"experiments/needle.py|{tmp_path}/needle,seed=0|{words}"


@pytest.fixture(scope="module")
def claims() -> dict[str, Claim]:
    """The claims of the ledger, by name."""
    named = {claimed.name: claimed for claimed in CLAIMS}
    assert len(named) == len(CLAIMS)
    return named


def test_every_claim_can_be_run_and_has_a_source(claims, tmp_path):
    for claimed in claims.values():
        assert claimed.text.endswith(".") and claimed.source and len(claimed.seeds) >= 3
        for case in claimed.cases:
            case.reading(0)  # the config and every change are valid
            assert f"experiments/train.py {case.config}" in case.command(tmp_path, claimed.seeds)


@pytest.mark.slow
def test_the_read_only_memory_of_the_claim_takes_nothing_in(claims):
    read_only, written = (case.experiment(0).model.memory for case in claims["writing_matters"].cases)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 24, 8)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def entries(memory, x):
        layer = MemoryLayer(memory, d_model=8, segment_length=4, rngs=nnx.Rngs(0))
        state = layer.init_state(2)
        return [layer(x[:, :length], state)[1].memory.entries for length in (1, 24)]

    before, after = entries(read_only, x)
    assert difference(before, after._replace(age=before.age)) == 0 and np.all(after.valid)
    before, after = entries(written, x)
    assert not np.any(before.valid) and np.all(np.sum(after.valid, axis=1) == 24)


def test_changes_are_checked():
    assert assignments(["a.b-c=1", "--d=2 3"]) == {"a.b_c": "1", "d": "2 3"}
    with pytest.raises(ValueError, match="a change must be field=value, got 'seed'"):
        assignments(["seed"])


def test_json_holds_an_entry(tmp_path):
    claimed = claim(case("none"), case("kv"), order="rises")
    entry = ledger.record(outcome(claimed, none=[0.0, 0.1], kv=[1.0, 0.9]), tmp_path)
    assert json.loads(json.dumps(entry)) == entry and entry["cases"][1]["spread"] == pytest.approx(0.0707, abs=1e-4)
