"""The memory that a process may use, as containers and limits say."""

import resource

import pytest

from memgpt_jax.training import device_memory

GB = 10**9


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Makes a system of some files, on which nothing else limits the process."""
    monkeypatch.setattr(device_memory.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 64 * GB}[name])
    monkeypatch.setattr(
        device_memory.resource, "getrlimit", lambda name: (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )

    def make(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


GROUPS = "sys/fs/cgroup"
VERSION_1 = "12:cpu,cpuacct:/x\n3:memory:/docker/abc\n0::/ignored\n"


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/memory.max": "max\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/memory.max": f"{8 * GB}\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", f"{GROUPS}/a/b/memory.max": f"{8 * GB}\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b:c\n", f"{GROUPS}/a/memory.max": f"{6 * GB}", f"{GROUPS}/memory.max": "max"}, 6),
        ({"proc/self/cgroup": VERSION_1, f"{GROUPS}/memory/docker/abc/memory.limit_in_bytes": f"{4 * GB}\n"}, 4),
        ({"proc/self/cgroup": VERSION_1, f"{GROUPS}/memory/memory.limit_in_bytes": f"{3 * GB}\n"}, 3),  # namespace
        ({"proc/self/cgroup": VERSION_1, f"{GROUPS}/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 64),
        ({"proc/self/cgroup": "5:cpu:/x\n", f"{GROUPS}/memory/memory.limit_in_bytes": f"{GB}\n"}, 64),
    ],
)
def test_control_groups(system, files, expected):
    assert device_memory.memory_limit(system(files)) == expected * GB


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_the_process(system, monkeypatch, name):
    limits = {getattr(resource, name): (5 * GB, resource.RLIM_INFINITY)}
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(device_memory.resource, "getrlimit", lambda limit: limits.get(limit, unlimited))
    assert device_memory.memory_limit(system({})) == 5 * GB


def test_here():
    assert 10**8 < device_memory.memory_limit() < 10**14
