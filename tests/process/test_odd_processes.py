"""Apps that do odd things to their process: a breakpoint, native threads, closed standard descriptors."""

from __future__ import annotations

import pytest

from tests.conftest import Launch
from tests.process.connections import all_of

SCHEMES = ("shared", "dispatch", "accept")


def test_threads_that_python_does_not_know_are_warned_of_before_the_fork(launch: Launch):
    server = launch("odd_processes.py", "--workers", "1", environment={"ODD": "native thread"})
    line = next(line for line in server.log if "threads before the fork" in line)
    assert ", 1 native)" in line


def test_an_app_without_threads_is_not_warned_of(launch: Launch):
    server = launch("odd_processes.py", "--workers", "1")
    assert "threads before" not in server.text


def test_an_app_that_is_patched_for_coroutines_is_refused_in_one_line(launch: Launch):
    environment = {"ODD": "gevent"}
    server = launch("odd_processes.py", "--workers", "1", ready=False, environment=environment)
    assert server.ended() != 0
    (line,) = server.log
    assert "gevent has replaced parts of Python (select, socket)" in line


@pytest.mark.scheme(*SCHEMES)
def test_no_client_becomes_a_standard_descriptor(launch: Launch):
    server = launch("odd_processes.py", "--workers", "1")
    assert server.ask("CLOSE_STANDARD") == "closed"
    with server.connect() as peer:
        peer.send(b"COMPLAIN\nSTANDARD\nQUIT\n")
        assert all_of(peer) == b"written\n/dev/null /dev/null /dev/null\nOK\n"


@pytest.mark.scheme(*SCHEMES)
@pytest.mark.parametrize("odd", ["closed early", "closed in a hook"])
def test_nothing_of_linepool_s_becomes_a_standard_descriptor(launch: Launch, odd: str):
    server = launch("odd_processes.py", "--workers", "1", environment={"ODD": odd})
    assert server.ask("STANDARD").split()[0] == "/dev/null"
    assert server.ask("ADD 1 2") == "3"
    assert server.stop() == 0


def test_a_breakpoint_without_a_terminal_is_skipped_and_the_log_says_why(launch: Launch):
    server = launch("odd_processes.py", "--workers", "1")
    assert server.ask("STOP_HERE 1 2") == "3"
    line = server.wait_for("breakpoint ignored at=")
    assert "odd_processes.py:" in line
    assert "the server has no terminal" in line


def test_the_user_s_own_choice_of_a_debugger_is_kept(launch: Launch):
    server = launch("odd_processes.py", "--workers", "1", environment={"PYTHONBREAKPOINT": "0"})
    assert server.ask("STOP_HERE 1 2") == "3"
    assert server.stop() == 0
    assert "breakpoint" not in server.text
