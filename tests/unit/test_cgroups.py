"""What cgroups v1 and v2 allow: CPU time and memory, in a tree made for the test and in the kernel."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from linepool.kernel.cgroups import cpu_quota, memory_limit, times_throttled
from linepool.kernel.cpus import available_cpus
from linepool.kernel.process_memory import ProcessMemory, memory_of
from linepool.operate.memory_check import too_low
from tests.cgroups import JOIN, limited

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
        (self.proc / "cgroup").write_text(f"3:pids:/elsewhere\n{group}\n")
        (self.proc / "mountinfo").write_text(f"{other}{line}\n{other}")

    def v2(self, group: str, limit: str) -> None:
        (self.top / group).mkdir(parents=True, exist_ok=True)
        (self.top / group / "cpu.max").write_text(limit + "\n")

    def v1(self, group: str, quota: int, period: int = 100_000) -> None:
        (self.top / group).mkdir(parents=True, exist_ok=True)
        (self.top / group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (self.top / group / "cpu.cfs_period_us").write_text(f"{period}\n")

    def write(self, group: str, file: str, text: str) -> None:
        (self.top / group).mkdir(parents=True, exist_ok=True)
        (self.top / group / file).write_text(text + "\n")

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


def test_the_least_memory_limit_of_a_group_and_those_above_it_counts(tree):
    tree.process("0::/slice/pod/app")
    tree.write("slice", "memory.max", "900000000")
    tree.write("slice/pod", "memory.max", "800000000")
    tree.write("slice/pod/app", "memory.max", "max")

    assert memory_limit(tree.proc) == 800_000_000


@pytest.mark.parametrize(
    ("text", "limit"),
    [("400000000", 400_000_000), (str(2**63 - 4096), math.inf), ("-1", math.inf), ("x", math.inf)],
)
def test_the_memory_limit_of_a_v1_group_counts(tree, text, limit):
    tree.process("4:memory:/docker/abc", V1, root="/docker/abc", controllers="memory")
    tree.write(".", "memory.limit_in_bytes", text)

    assert memory_limit(tree.proc) == limit
    assert tree.quota == math.inf


def test_memory_without_a_limit_and_without_groups_is_unlimited(tree):
    tree.process("0::/app")
    tree.v2("app", "150000 100000")

    assert memory_limit(tree.proc) == memory_limit(tree.proc / "missing") == math.inf


def test_throttled_periods_are_counted(tree):
    assert times_throttled(tree.proc) == 0
    tree.process("0::/app")
    tree.write("app", "cpu.stat", "usage_usec 7\nnr_periods 100\nnr_throttled 37\nthrottled_usec 9")

    assert times_throttled(tree.proc) == 37


def test_a_limit_below_what_all_workers_need_is_told():
    mib = 1024 * 1024
    sample = [
        ProcessMemory(own=4 * mib, shared=28 * mib),
        ProcessMemory(own=8 * mib, shared=30 * mib),
    ]

    assert too_low(90 * mib, 10, sample) == ""
    assert too_low(89 * mib, 10, sample) == (
        "memory limit too low for all workers: limit_mb=89 needed_mb=90 workers=10 own_mb=6.0"
        " shared_mb=30.0"
    )
    assert too_low(mib, 10, []) == ""


def test_the_memory_of_a_process_is_its_own_or_shared():
    memory = memory_of(os.getpid())

    assert memory is not None
    assert memory.own > 1_000_000
    assert memory.shared > 0
    assert memory_of(2**22 + 1) is None


@pytest.mark.parametrize(
    ("controller", "file", "value", "shown"),
    [
        ("cpu", "cpu.cfs_quota_us", 50_000, "available_cpus() == 0.5"),
        ("memory", "memory.limit_in_bytes", 2**28, "memory_limit() == 2**28"),
    ],
)
def test_a_process_in_a_group_of_the_kernel_sees_its_limit(controller, file, value, shown):
    code = (
        "from linepool.kernel.cpus import available_cpus;"
        f"from linepool.kernel.cgroups import memory_limit; print({shown})"
    )
    with limited(controller, file, value) as folder:
        done = subprocess.run(
            [*JOIN, str(folder), sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
        )

    assert done.stdout == "True\n"
