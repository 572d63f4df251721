"""The wheel works without the repository: its commands train, evaluate and generate with the configs inside it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder that holds the files of the wheel and nothing of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_every_file_of_the_package_and_every_config_is_inside(installed):
    names = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    tracked = [path for path in (ROOT / "memgpt_jax").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {str(path.relative_to(ROOT)) for path in tracked} <= names
    assert {f"memgpt_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")} <= names
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "memgpt-jax = memgpt_jax.studies.entry:main" in entry.read_text()


@pytest.mark.slow
def test_it_trains_evaluates_and_generates(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("COLUMNS", "200")

    def memgpt(*words: str) -> str:
        program = "import sys; from memgpt_jax.studies.entry import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=900).stdout

    tiny = ("--model.num_layers", "1", "--training.steps", "2", "--evaluation.max_documents", "1")
    assert "finished 2 steps" in memgpt("train", "quickstart", "--workdir", "run", *tiny)
    assert "bits per byte" in memgpt("evaluate", "run")
    assert memgpt("generate", "run", "--prompt", "import os", "--max-new-tokens", "4").startswith("import os")
