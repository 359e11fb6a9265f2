"""A server without what only Linux has: the scheme accept on a pretended macOS (``tests/pretend_bsd``).

The system calls and names are taken away from the server's processes only; the tests themselves use them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.kernel import features
from linepool.kernel.sockets import close_by_reset
from tests.conftest import Launch
from tests.servers import ENVIRONMENT, HANDLERS, TIMEOUT, Gate, ServerProcess, has_ended

PRETENDED = {"PYTHONPATH": str(Path(__file__).parents[1] / "pretend_bsd")}
OPENBSD = {**PRETENDED, "PRETENDED": "openbsd8"}
_LIST_FEATURES = """
import os, socket
from linepool.kernel import features
assert socket.SO_PEERCRED and socket.TCP_INFO and os.pipe2
print([name for name, value in vars(features).items() if name.isupper() and value is True])
"""
_IMPORT_ALL = """
import importlib, pkgutil, sys
import linepool
assert sys.platform == "darwin"
for module in pkgutil.walk_packages(linepool.__path__, "linepool."):
    if not module.name.startswith("linepool.core.") and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("linepool.")]))
"""


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python of the pretended macOS to its end."""
    return subprocess.run(
        [sys.executable, "-P", *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**ENVIRONMENT, **PRETENDED, **environment},
        check=False,
    )


# -- commands


def test_every_module_can_be_imported_without_the_names_of_linux():
    ended = run("-c", _IMPORT_ALL)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 300


def test_the_version_says_that_pure_python_runs_and_why():
    ended = run("-m", "linepool", "--version")
    assert "pure Python (this system has no pidfd, " in ended.stdout


def test_an_app_can_be_checked_and_its_scheme_is_accept():
    ended = run("-m", "linepool", "check", "--settings", str(HANDLERS / "workshop.py"))
    assert ended.returncode == 0, ended.stderr
    assert any(line.split()[:2] == ["scheme", "accept"] for line in ended.stdout.splitlines())


@pytest.mark.parametrize("scheme", ["shared", "dispatch"])
def test_the_other_schemes_are_refused_and_the_message_says_what_is_missing(scheme: str):
    command = ("-m", "linepool", "run", str(HANDLERS / "workshop.py"), "--scheme", scheme)
    for ended in (run(*command), run(*command, **{features.VARIABLE: "1"})):
        assert ended.returncode == 2
        assert f"scheme {scheme} needs Linux (this system has no pidfd, epoll, " in ended.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--user", "nobody"), "user needs Linux; start the server as that user"),
        (("--no-new-privileges", "on"), "no_new_privileges needs Linux; "),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_settings_for_privileges_are_refused(command: str, option: tuple[str, str], message: str):
    words = ("-m", "linepool", command, str(HANDLERS / "workshop.py"), *option)
    for ended in (run(*words), run(*words, **{features.VARIABLE: "1"})):
        assert ended.returncode == 2
        assert f"linepool: {message}" in ended.stderr


def test_a_name_that_linux_has_too_is_not_used_on_another_system():
    ended = run("-c", _LIST_FEATURES, **OPENBSD)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_a_path_that_is_too_long_for_a_unix_socket_is_refused(tmp_path: Path):
    path = tmp_path / ("s" * 104)
    for option in (f"--bind=unix:{path}", f"--control={path}"):
        ended = run("-m", "linepool", "run", str(HANDLERS / "workshop.py"), option)
        assert ended.returncode == 1
        assert f"{path}: AF_UNIX path too long" in ended.stderr


def test_a_loader_whose_master_has_ended_while_it_was_started_does_not_become_a_server():
    told = r'{"channel": 0, "master": 0, "passed": [], "loader": '
    shell = f"LINEPOOL_LOADER='{told}'$$'}}' exec \"$@\""
    target = str(HANDLERS / "workshop.py")
    words = ("-P", "-m", "linepool", "run", target, "--bind", "127.0.0.1:0")
    ended = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**ENVIRONMENT, **PRETENDED},
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (1, "")


# -- a server


@pytest.fixture
def server(launch: Launch, gate: Gate) -> ServerProcess:
    """Give a server on a pretended macOS."""
    return launch(
        "workshop.py",
        *("--workers", "2", "--request-timeout", "0.5", "--kill-grace", "0.2"),
        environment=PRETENDED,
    )


def test_it_says_what_is_missing_and_what_that_costs(server: ServerProcess):
    for name in ("pidfd", "epoll", "TCP_INFO", "sealed memory"):
        assert f"INFO    no {name}: " in server.text
    assert server.status()["scheme"] == "accept"
    assert server.stop() == 0


def test_it_serves_and_its_pool_survives_what_handlers_do(server: ServerProcess, gate: Gate):
    assert server.converse(b"COUNT 2\nPUT 2\nab\n") == b"1\n2\nEND\n2\n"

    with server.connect() as peer:
        peer.send(b"HOLD text\n")
        assert peer.line() == "SERVER_ERROR the request took longer than 0.5 s"
    assert "request overdue command=HOLD" in server.wait_for("request overdue")

    with server.connect() as peer:
        peer.send(b"CLING\n")
        assert peer.rest() == b""  # no error line: no other process can write to this connection
    assert "why='took longer than 0.5 s' command=CLING" in server.wait_for("worker killed")

    with server.connect() as peer:
        peer.send(b"DIE\n")
        assert peer.rest() == b""
    assert "signal=SIGKILL" in server.wait_for("worker died")

    state = server.until(lambda state: state["tally"]["idle"] == 2)
    assert state["counters"]["kills"] == state["counters"]["crashes"] == 1
    assert server.stop() == 0


def test_a_reload_replaces_its_workers_and_a_stop_is_graceful(server: ServerProcess, gate: Gate):
    before = server.pids()
    server.send(signal.SIGHUP)
    server.wait_for("reloaded generation 2")
    state = server.until(lambda state: state["tally"]["total"] == 2)
    assert not set(before) & {worker["pid"] for worker in state["workers"]}
    assert server.converse(b"COUNT 1\n") == b"1\nEND\n"
    assert server.stop() == 0
    assert "listeners closed" in server.text


def test_it_does_not_upgrade(server: ServerProcess):
    server.send(signal.SIGUSR2)
    assert "this system has no pidfd" in server.wait_for("upgrade failed")


@pytest.fixture
def watched(server: ServerProcess) -> Iterator[list[int]]:
    """Give pidfds of its workers."""
    pidfds = [os.pidfd_open(pid) for pid in server.pids()]
    yield pidfds
    for pidfd in pidfds:
        os.close(pidfd)


def test_the_workers_end_when_the_master_is_killed(server: ServerProcess, watched: list[int]):
    server.send(signal.SIGKILL)
    assert all(map(has_ended, watched))
    assert server.ended() == -signal.SIGKILL


def test_the_workers_end_when_the_master_is_killed_during_a_stop(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "2", environment=PRETENDED)
    pidfds = [os.pidfd_open(pid) for pid in server.pids()]
    with server.connect() as peer:
        peer.send(b"HOLD text\n")
        gate.wait()
        server.send(signal.SIGTERM)
        server.wait_for("stopping")
        server.send(signal.SIGKILL)
        gate.open()
        assert peer.line() == "text"
    assert all(map(has_ended, pidfds))
    for pidfd in pidfds:
        os.close(pidfd)


def test_a_client_that_is_quiet_is_not_waited_for_longer_than_settings_say(launch: Launch):
    server = launch("workshop.py", "--workers", "1", "--idle-timeout", "0.3", environment=PRETENDED)
    with server.connect() as peer:
        assert peer.ask("COUNT 1") == "1"
        assert peer.rest() == b"END\n"
    with server.connect():
        server.until(lambda state: state["tally"]["busy"] == 1)
        assert server.stop() == 0
    assert "worker killed" not in server.text


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0"])
def test_a_client_that_has_left_before_it_is_accepted_ends_no_worker(
    launch: Launch, gate: Gate, bind: str
):
    server = launch("workshop.py", "--workers", "1", bind=(bind,), environment=PRETENDED)
    with server.connect() as peer:
        peer.send(b"HOLD text\n")
        gate.wait()
        close_by_reset(server.connect().socket)
        gate.open()
        assert peer.line() == "text"
    assert server.converse(b"COUNT 1\n") == b"1\nEND\n"
    counters = server.status()["counters"]
    assert (counters["crashes"], counters["connections"]) == (0, 2)
    assert server.stop() == 0


def test_a_limit_of_open_files_that_the_system_does_not_tell_lowers_the_number_of_workers(
    launch: Launch,
):
    low = ("sh", "-c", 'ulimit -Sn 512; exec "$@"', "sh")
    server = launch("workshop.py", "--workers", "1:1000", environment=PRETENDED, wrapper=low)
    assert "WARNING the limit of open files is low " in server.text
    assert server.status()["tally"]["max"] < 1000
    assert server.stop() == 0


def test_a_system_without_options_of_linux_serves_ipv4_and_ipv6(launch: Launch):
    server = launch("workshop.py", bind=("[::]:0", "0.0.0.0:0"), environment=OPENBSD)
    for listener in (0, 1):
        with server.connect(listener) as peer:
            assert peer.ask("COUNT 1") == "1"
    assert server.stop() == 0


@pytest.mark.parametrize("environment", [PRETENDED, OPENBSD], ids=["macos", "openbsd"])
def test_a_client_reads_its_end_though_a_process_that_was_forked_lives_on(
    launch: Launch, environment: dict[str, str]
):
    server = launch("forking.py", "--workers", "1", environment=environment)
    with server.connect() as peer:
        assert int(peer.ask("FORK_IN_THREAD")) > 0
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.rest() == b""
    assert server.stop() == 0


_SLOW_END = """
import os, time
def close_and_exit(status, exit=os._exit):
    os.closerange(3, 256)
    time.sleep(1)
    exit(status)
os._exit = close_and_exit
"""


def test_what_a_handler_leaves_behind_ends_with_the_master_though_the_keeper_takes_its_time_to_end(
    launch: Launch, tmp_path: Path
):
    (tmp_path / "sitecustomize.py").write_text(_SLOW_END)
    environment = {features.VARIABLE: "1", "PYTHONPATH": str(tmp_path)}
    server = launch("forking.py", "--workers", "1", environment=environment)
    child = os.pidfd_open(int(server.ask("PROGRAM")))
    server.send(signal.SIGKILL)
    assert has_ended(child)
    os.close(child)


def test_a_worker_counts_as_killed_if_its_keeper_is_and_is_replaced(
    server: ServerProcess, watched: list[int]
):
    stat = Path(f"/proc/{server.pids()[0]}/stat").read_text().rpartition(") ")[2].split()
    os.kill(int(stat[1]), signal.SIGKILL)
    assert "signal=SIGKILL" in server.wait_for("worker died")
    assert has_ended(watched[0])
    server.until(lambda state: state["tally"]["idle"] == 2)
    assert server.stop() == 0


# -- other builds of Python


def test_a_warning_says_that_free_threaded_python_is_not_supported(launch: Launch, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.abiflags = 't'\n")
    server = launch("workshop.py", "--workers", "1", environment={"PYTHONPATH": str(tmp_path)})

    assert "WARNING free-threaded Python is not supported: " in server.text
    assert server.stop() == 0
