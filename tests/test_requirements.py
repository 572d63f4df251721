"""The project's files agree with one another."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 500


def read_requirements() -> list[tuple[str, str]]:
    """(requirement, comment) of every line of requirements.txt that is not a comment only."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    parts = [line.partition("#") for line in lines if line.strip() and not line.startswith("#")]
    return [(requirement.strip(), comment.strip()) for requirement, _, comment in parts]


def test_requirements_equal_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [requirement for requirement, _ in read_requirements()] == project["dependencies"]


def test_requirements_are_ranges_each_with_a_comment():
    for requirement, comment in read_requirements():
        assert comment, f"{requirement} has no comment"
        specifiers = {specifier.operator for specifier in Requirement(requirement).specifier}
        assert ">=" in specifiers and not specifiers & {"==", "===", "~="}, requirement


def test_package_is_typed():
    assert (ROOT / "memgpt_jax" / "py.typed").is_file()


@pytest.mark.parametrize("folder", ["memgpt_jax", "experiments", "configs", "tests"])
def test_no_file_is_long(folder):
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert not {str(path): length for path, length in lengths.items() if length > MAX_LINES}
