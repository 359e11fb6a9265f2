"""The pid file: one server each, no link followed, no other file overwritten, never left behind."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from linepool import SetupError
from linepool.operate.pid_file import PidFile
from tests.servers import TIMEOUT

_HOLD = """
import sys
from linepool.operate.pid_file import PidFile
file = PidFile(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def refusal(path) -> str:
    with pytest.raises(SetupError) as error:
        PidFile(str(path))
    return str(error.value)


def test_what_cannot_be_written_is_refused_and_removed(tmp_path):
    path = tmp_path / "server.pid"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # as on a full file system
    try:
        why = refusal(path)
        taken = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        PidFile.taken_over(str(path), taken).close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert why == f"pid_file: cannot write {path}: File too large"
    assert not path.exists()


def test_it_has_the_pid_and_goes_with_its_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o077)
    file = PidFile("server.pid")
    os.umask(before)

    path = tmp_path / "server.pid"
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert not os.get_inheritable(file.descriptor)
    monkeypatch.chdir("/")
    file.close()
    assert not path.exists()


@pytest.mark.parametrize("left", ["", "1\n", "4194304\n", "99999"])
def test_one_that_a_dead_server_has_left_behind_is_taken_over(tmp_path, left):
    path = tmp_path / "server.pid"
    path.write_text(left)

    file = PidFile(str(path))

    assert path.read_text() == f"{os.getpid()}\n"
    file.close()


def test_a_second_server_is_refused_until_the_first_has_ended(tmp_path):
    path = tmp_path / "server.pid"
    command = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"

        assert refusal(path) == f"pid_file: {path} is in use by a server (pid {first.pid})"
        assert path.read_text() == f"{first.pid}\n"
        first.kill()
        first.wait(TIMEOUT)
    PidFile(str(path)).close()


def test_the_lock_is_not_inherited_by_children_and_stays_over_an_exec(tmp_path):
    path = tmp_path / "server.pid"
    program = f"""
import os, sys
from linepool.operate.pid_file import PidFile
if len(sys.argv) > 1:
    file = PidFile.taken_over({str(path)!r}, int(sys.argv[1]))
    print("taken over", flush=True)
    sys.stdin.read(1)
    file.close()
else:
    file = PidFile({str(path)!r})
    if os.fork() == 0:
        os._exit(0)  # which closes its copy
    os.wait()
    os.set_inheritable(file.descriptor, True)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], str(file.descriptor)])
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "taken over\n"
        assert path.read_text() == f"{server.pid}\n"
        assert refusal(path) == f"pid_file: {path} is in use by a server (pid {server.pid})"
        server.communicate("x", TIMEOUT)
    assert not path.exists()


def test_a_symbolic_link_is_not_followed(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "server.pid"
    victim.write_text("1\n")
    path.symlink_to(victim)

    assert refusal(path) == (
        f"pid_file: cannot write {path}: it is a symbolic link, which is not followed"
    )
    assert victim.read_text() == "1\n"


def test_a_second_name_of_another_file_is_refused(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "server.pid"
    victim.write_text("1\n")
    path.hardlink_to(victim)

    assert "is not a pid file" in refusal(path)
    assert victim.read_text() == "1\n"


@pytest.mark.parametrize("content", ["bind = '127.0.0.1:1'\n", "12 13\n", "1" * 40, "-1", "\0"])
def test_a_file_that_is_not_a_pid_file_is_not_overwritten(tmp_path, content):
    path = tmp_path / "linepool.toml"
    path.write_text(content)

    assert refusal(path) == (
        f"pid_file: {path} exists and is not a pid file; remove it, or give another path"
    )
    assert path.read_text() == content


def test_nor_is_a_fifo_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")

    assert "is not a pid file" in refusal(tmp_path / "fifo")


def test_a_missing_directory_is_named(tmp_path):
    path = tmp_path / "run" / "server.pid"

    assert refusal(path) == (
        f"pid_file: cannot write {path}: the directory {tmp_path}/run does not exist"
    )
    assert refusal(tmp_path) == f"pid_file: cannot write {tmp_path}: Is a directory"


def test_a_file_in_its_place_at_the_end_is_not_removed(tmp_path):
    path = tmp_path / "server.pid"
    file = PidFile(str(path))
    path.unlink()
    path.write_text("another server's\n")

    file.close()

    assert path.read_text() == "another server's\n"
