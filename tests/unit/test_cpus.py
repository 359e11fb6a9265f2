"""The number of CPUs: affinity, and the quotas of cgroups v1 and v2, in a tree made for the test."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.kernel.cpus import available_cpus, cpu_quota

V2 = "31 23 0:28 {root} {point} rw,relatime shared:4 - cgroup2 cgroup2 rw"
V1 = "31 23 0:28 {root} {point} rw,relatime - cgroup cgroup rw,{controllers}"


class Tree:
    """A process's files of /proc, and the cgroups that are mounted."""

    def __init__(self, path: Path) -> None:
        self.proc = path / "proc"
        self.proc.mkdir()
        self.top = path / "cgroup"
        self.top.mkdir()

    def process(self, group: str, mount: str = V2, root: str = "/", controllers: str = "cpu"):
        other = "22 20 0:5 / /proc rw - proc proc rw\n"
        point = str(self.top).replace(" ", "\\040")
        line = mount.format(root=root, point=point, controllers=controllers)
        (self.proc / "cgroup").write_text(f"3:memory:/elsewhere\n{group}\n")
        (self.proc / "mountinfo").write_text(f"{other}{line}\n{other}")

    def v2(self, group: str, limit: str) -> None:
        (self.top / group).mkdir(parents=True, exist_ok=True)
        (self.top / group / "cpu.max").write_text(limit + "\n")

    def v1(self, group: str, quota: int, period: int = 100_000) -> None:
        (self.top / group).mkdir(parents=True, exist_ok=True)
        (self.top / group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (self.top / group / "cpu.cfs_period_us").write_text(f"{period}\n")

    @property
    def quota(self) -> float:
        return cpu_quota(self.proc)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_the_quota_of_a_v2_group_counts(tree):
    tree.process("0::/pod/app")
    tree.v2("pod/app", "150000 100000")

    assert tree.quota == 1.5


def test_the_quota_of_a_v1_group_counts(tree):
    tree.process("4:cpuacct,cpu:/pod", V1, controllers="cpuacct,cpu")
    tree.v1("pod", 25_000, 50_000)

    assert tree.quota == 0.5


def test_the_least_quota_of_a_group_and_those_above_it_counts(tree):
    tree.process("0::/slice/pod/app")
    tree.v2("slice", "800000 100000")
    tree.v2("slice/pod", "200000 100000")
    tree.v2("slice/pod/app", "max 100000")

    assert tree.quota == 2


def test_in_a_container_the_mounted_group_is_the_top(tree):
    tree.process("4:cpu:/docker/abc/inner", V1, root="/docker/abc")
    tree.v1("inner", -1)
    tree.v1(".", 300_000)

    assert tree.quota == 3


@pytest.mark.parametrize("group", ["0::/", "0::/../other", "0::/kubepods/pod1"])
def test_a_group_that_is_not_mounted_is_represented_by_the_mount(tree, group):
    tree.process(group, root="/kubepods/pod2")
    tree.v2(".", "200000 100000")

    assert tree.quota == 2


def test_a_mount_may_have_blanks_in_its_name(tmp_path):
    (tmp_path / "a b").mkdir()
    tree = Tree(tmp_path / "a b")
    tree.process("0::/")
    tree.v2(".", "200000 100000")

    assert tree.quota == 2


@pytest.mark.parametrize("text", ["max 100000", "0 100000", "100000 0", "", "nonsense", "1 2 3"])
def test_a_group_without_a_quota_allows_all_cpus(tree, text):
    tree.process("0::/app")
    tree.v2("app", text)

    assert tree.quota == math.inf


@pytest.mark.parametrize("text", ["", "rubbish", "0::/\n::", "0::/app\n\xff"])
def test_unexpected_contents_of_proc_mean_no_quota(tree, text):
    tree.process("0::/app")
    (tree.proc / "cgroup").write_text(text)
    (tree.proc / "mountinfo").write_text(text)

    assert tree.quota == math.inf
    assert cpu_quota(tree.proc / "missing") == math.inf


def test_the_affinity_counts_too():
    assert 0 < available_cpus() <= len(os.sched_getaffinity(0))


@contextlib.contextmanager
def real_group(quota_us: int) -> Iterator[Path]:
    """Give a cgroup of the kernel's with a quota; skip the test if it cannot be made."""
    folder = Path(f"/sys/fs/cgroup/cpu/linepool-test-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
    except OSError as error:
        pytest.skip(f"no cgroup of its own: {error}")
    try:
        yield folder
    finally:
        folder.rmdir()


def test_a_process_in_a_group_of_the_kernel_sees_its_quota():
    code = (
        "import os, sys; from linepool.kernel.cpus import available_cpus;"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid())); print(available_cpus())"
    )
    with real_group(50_000) as folder:
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
        )

    assert done.stdout == "0.5\n"
