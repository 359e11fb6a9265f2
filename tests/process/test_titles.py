"""Titles of processes: what ps, top and pgrep show of a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from linepool.kernel import title
from tests.servers import ENVIRONMENT, TIMEOUT

_BEGIN = """
import os, sys
from linepool.kernel.title import set_title
def shown(file):
    return open("/proc/self/" + file).read().rstrip(chr(10)).rstrip(chr(0))
"""


def printed_by(program: str, *arguments: str, **variables: str) -> list[str]:
    """Return the lines that a program prints."""
    result = subprocess.run(
        [sys.executable, "-c", _BEGIN + program, *arguments],
        env={**ENVIRONMENT, **variables},
        timeout=TIMEOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


def test_a_title_takes_the_place_of_the_arguments_and_of_nothing_else():
    program = """
for details in ("3 sums g7", "", "12 a b"):
    set_title("worker", details)
    print(shown("cmdline"), shown("comm"), sep="|")
print(sys.orig_argv[-1], sys.argv[-1], os.environ["MARK"], shown("environ").count("MARK=here"))
"""
    assert printed_by(program, "argument", MARK="here") == [
        "linepool: worker 3 sums g7|linepool worker",
        "linepool: worker|linepool worker",
        "linepool: worker 12 a b|linepool worker",
        "argument argument here 1",
    ]


def test_a_title_that_is_too_long_is_cut():
    program = """
room = len(open("/proc/self/cmdline").read()) - 1
set_title("worker", "9" * 5000)
print(shown("cmdline") == ("linepool: worker " + "9" * 5000)[:room], shown("environ").count("MARK=here"))
"""
    assert printed_by(program, MARK="here") == ["True 1"]


def test_the_package_for_titles_is_used_if_it_is_installed(tmp_path):
    (tmp_path / "setproctitle.py").write_text("def setproctitle(text): print('set', text)\n")

    lines = printed_by("set_title('master', 'a')", PYTHONPATH=str(tmp_path))

    assert lines == ["set linepool: master a"]


def test_a_system_that_shows_nothing_of_the_process_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(title, "_SELF", tmp_path / "nothing")
    before = Path("/proc/self/cmdline").read_bytes()

    title.set_title("master", "a")

    assert Path("/proc/self/cmdline").read_bytes() == before
