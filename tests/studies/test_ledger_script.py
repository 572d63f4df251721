"""`memgpt-jax ledger`: claims of the cpu tier are measured, failures show, errors are clear."""

import json

import pytest

from memgpt_jax.files.sealed import seal, unseal


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_writing_matters(tmp_path, memgpt):
    """A claim of the cpu tier, with one seed; again, it is read back."""
    words = ["writing_matters", "--seeds", "0", "--workdir", tmp_path]
    memgpt("ledger", *words)
    entry = json.loads((tmp_path / "ledger.json").read_text())[0]
    text = (tmp_path / "LEDGER.md").read_text()
    assert entry["holds"] and "## writing_matters" in text and "holds (1 of 3 seeds)" in text
    assert all(case["seconds"] > 0 and case["state_bytes"] > 0 for case in entry["cases"])

    # A claim that no longer holds is shown as failed, and the exit code says so.
    (evaluation,) = [path for path in tmp_path.glob("*/evaluation.json") if "lowest_gate" not in str(path)]
    evaluation.write_text(seal(unseal(evaluation.read_text().strip()) | {"accuracy": 0.5}) + "\n")
    again = memgpt("ledger", *words, code=1)
    assert "0 of 1 claims hold" in " ".join(again.split())
    assert "read and written, seed 0: 0.5000 is not at least 0.95" in (tmp_path / "LEDGER.md").read_text()


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "error: name claims or a tier; the claims are:\n  convolution_binds (cpu): "),
        (["convolution"], "error: there is no claim 'convolution'; valid: convolution_binds, writing_matters"),
    ],
)
def test_errors_say_what_there_is(words, message, tmp_path, memgpt):
    assert memgpt("ledger", *words, "--workdir", tmp_path / "new", code=2).startswith(message)
    assert not (tmp_path / "new").exists()
