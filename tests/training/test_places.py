"""Folders that cannot be used, disks that are full at any write: one clear line, the last good state, resumed."""

import os
import shutil
import subprocess
import time

import pytest

from memgpt_jax import data
from memgpt_jax.checkpoint import checkpoints as checkpoint_files
from memgpt_jax.checkpoint import load_run
from memgpt_jax.checkpoint.folder import check_room, check_space
from memgpt_jax.training import RunError, evaluation, loop, read_metrics, train
from memgpt_jax.training.metrics import CLOCKED

DISK = "size=2m"


@pytest.fixture
def disk(tmp_path):
    """A folder that is a small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def at_batch(monkeypatch):
    """Call a function when the training batch of a number, from 0, is made."""
    original = data.train_batches

    def install(number, function):
        class Watched:
            def __init__(self, *arguments):
                self.batches, self.count = original(*arguments), 0
                self.get_state, self.set_state = self.batches.get_state, self.batches.set_state

            def __next__(self):
                if self.count == number:
                    function()
                self.count += 1
                return next(self.batches)

        monkeypatch.setattr(data, "train_batches", Watched)

    return install


def fill(folder):
    """Use up the disk of a folder, when the save under way is done."""
    while list(folder.glob("run/checkpoints/*tmp*")):
        time.sleep(0.01)
    with open(folder / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def timeless(workdir):
    return [record | dict.fromkeys(CLOCKED) for record in read_metrics(workdir)]


def refused_in_one_line(config, workdir, capfd, *words):
    capfd.readouterr()
    with pytest.raises(RunError) as error:
        train(config, workdir, print_progress=False)
    message = str(error.value)
    assert "\n" not in message and str(workdir) in message, message
    assert all(word in message for word in words), message
    assert "Traceback" not in capfd.readouterr().err
    return message


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_config):
    workdir = tmp_path_factory.mktemp("whole")
    return train(make_config(), workdir, print_progress=False), timeless(workdir)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # raised in threads of Orbax
@pytest.mark.parametrize(
    "first, batch, step",
    [
        ("files of a checkpoint", 8, 5),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in [("log", 8, 5), ("checkpoint", 4, 0)]),
    ],
    ids=str,
)
def test_a_disk_that_is_full_in_training(disk, at_batch, make_config, whole, capfd, monkeypatch, batch, step, first):
    workdir, config, logs = disk / "run", make_config(), first == "log"
    if first == "files of a checkpoint":  # no one looks ahead
        monkeypatch.setattr(checkpoint_files, "check_room", lambda *_: None)
    if not logs:
        write = loop.MetricsLog.write
        monkeypatch.setattr(loop.MetricsLog, "write", lambda self, record: None)
    at_batch(batch, lambda: fill(disk))
    refused_in_one_line(config, workdir, capfd, "No space left on device")
    assert load_run(workdir).step == step
    (disk / "ballast").unlink()
    at_batch(-1, None)
    if not logs:
        monkeypatch.setattr(loop.MetricsLog, "write", write)
    result = train(config, workdir, print_progress=False)
    if logs:
        assert timeless(workdir) == whole[1]
    assert result["evaluation"] == whole[0]["evaluation"]


def test_a_disk_that_is_full_before_and_after_training(disk, make_config, whole, capfd, monkeypatch):
    workdir, config = disk / "run", make_config()
    fill(disk)
    refused_in_one_line(config, workdir, capfd)
    (disk / "ballast").unlink()
    (disk / "most").write_bytes(bytes(2**21 - 2**16))
    refused_in_one_line(config, workdir, capfd, "MB free", "training.keep_checkpoints")
    assert not list((workdir / "checkpoints").iterdir())
    (disk / "most").unlink()
    original = evaluation.evaluate

    def fill_and_evaluate(*arguments):
        fill(disk)
        return original(*arguments)

    monkeypatch.setattr(evaluation, "evaluate", fill_and_evaluate)
    refused_in_one_line(config, workdir, capfd, "No space left on device")
    assert load_run(workdir).step == 12 and not (workdir / "evaluation.json").exists()
    monkeypatch.setattr(evaluation, "evaluate", original)
    (disk / "ballast").unlink()
    assert train(config, workdir, print_progress=False)["evaluation"] == whole[0]["evaluation"]


def test_a_workdir_that_vanishes(tmp_path, at_batch, make_config, capfd):
    workdir = tmp_path / "run"
    at_batch(3, lambda: shutil.rmtree(workdir))
    refused_in_one_line(make_config(), workdir, capfd, "No such file or directory")


def test_a_workdir_that_is_no_folder(tmp_path, make_config, capfd):
    (tmp_path / "file").write_text("x")
    refused_in_one_line(make_config(), tmp_path / "file", capfd, "workdir=", "not a folder")
    refused_in_one_line(make_config(), tmp_path / "file" / "run", capfd, "workdir=", "not a folder")
    (tmp_path / "run" / "checkpoints").parent.mkdir()
    (tmp_path / "run" / "checkpoints").write_text("x")
    refused_in_one_line(make_config(), tmp_path / "run", capfd, "checkpoints", "not a folder")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "run")
    refused_in_one_line(make_config(), tmp_path / "link", capfd)


def test_a_disk_that_is_read_only(disk, make_config, capfd):
    workdir = disk / "run"
    subprocess.run(["mount", "-o", f"remount,ro,{DISK}", disk], check=True)
    refused_in_one_line(make_config(), workdir, capfd, "workdir=", "Read-only file system")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_workdir_without_permission(tmp_path, make_config, capfd):
    tmp_path.chmod(0o500)
    refused_in_one_line(make_config(), tmp_path / "run", capfd, "workdir=", "permissions")
    tmp_path.chmod(0o700)


def test_permission_that_is_lost(tmp_path, make_config, capfd, monkeypatch):
    """As the system would refuse it to others than the superuser."""

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(loop, "check_space", refuse)
    message = refused_in_one_line(make_config(), tmp_path / "run", capfd, "Permission denied", "permissions")
    assert message.startswith("workdir=")


def test_checkpoints_that_evidently_do_not_fit(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    (tmp_path / "checkpoints").mkdir()
    check_space(tmp_path, free // 4, 3)
    with pytest.raises(RunError, match=r"MB free, but 3 checkpoints of .* lower training\.keep_checkpoints"):
        check_space(tmp_path, free // 2, 3)


def test_no_save_begins_where_no_folder_can_be_made(tmp_path, monkeypatch):
    """Orbax would wait five minutes for it, with the process kept alive."""
    monkeypatch.setattr(
        checkpoint_files.Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied"))
    )
    with pytest.raises(PermissionError):
        check_room(tmp_path, 0)
    monkeypatch.undo()
    check_room(tmp_path, 0)
    assert not list(tmp_path.iterdir())
