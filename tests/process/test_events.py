"""Incidents of real servers: what ``linepool events`` shows of workers that died, and the like."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from linepool.operate import remote
from tests.conftest import Launch
from tests.process.connections import open_files
from tests.process.test_control import linepool, talk
from tests.process.test_pool_size import holding
from tests.servers import ENVIRONMENT, TIMEOUT, Gate, ServerProcess, children_of

APP = """
import ctypes, faulthandler, os, time
import linepool
{top}

@linepool.handler
def version() -> int:
    return {version}

@linepool.handler
def segv() -> None:
    ctypes.string_at(0)

def inner() -> None:
    os.abort()

@linepool.handler
def abort() -> None:
    inner()

@linepool.handler
def leave(status: int) -> None:
    os._exit(status)

@linepool.handler
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "awake"

@linepool.handler
def nap_until(path: str) -> str:
    while not os.access(path, os.F_OK):
        time.sleep(0.01)
    return "awake"

@linepool.handler
def nap_then_segv(path: str) -> None:
    while not os.access(path, os.F_OK):
        time.sleep(0.01)
    ctypes.string_at(0)

@linepool.handler
def fork_segv() -> int:
    child = os.fork()
    if child == 0:
        ctypes.string_at(0)
    return os.waitpid(child, 0)[1]

@linepool.handler
def stuck() -> None:
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass
"""
QUICK = ("--workers", "1", "--slow-request", "0")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Give an app whose code can be changed."""
    path = tmp_path / "app.py"
    path.write_text(APP.format(top="", version=1))
    return path


def kinds(server: ServerProcess) -> list[str]:
    return [one["kind"] for one in events(server)]


def events(server: ServerProcess) -> list[dict[str, Any]]:
    """Return the incidents of a server."""
    return remote.events(server.control)


def until(
    server: ServerProcess, holds: Callable[[list[dict[str, Any]]], object]
) -> list[dict[str, Any]]:
    """Ask for the incidents until a condition holds, and return them."""
    give_up_at = time.monotonic() + TIMEOUT
    while not holds(found := events(server)):
        assert time.monotonic() < give_up_at, f"the condition never held: {found}"
        time.sleep(0.01)
    return found


def functions(event: dict[str, Any]) -> list[str]:
    return [one["function"] for one in event["stack"]]


# -- crashes


@pytest.mark.parametrize(
    ("request_", "name", "stack"),
    [("SEGV", "SIGSEGV", ["string_at", "segv"]), ("ABORT", "SIGABRT", ["inner", "abort"])],
)
@pytest.mark.both
@pytest.mark.scheme("shared", "dispatch", "accept")
def test_a_worker_that_dies_by_a_fault_leaves_its_stack(
    launch: Launch, app: Path, request_, name, stack, scheme
):
    server = launch(app, *QUICK)
    (pid,) = server.pids()

    assert server.ask(request_) == ""

    (event,) = until(server, bool)
    assert functions(event) == stack
    assert event["stack"][-1]["file"] == str(app)
    facts = {key: event[key] for key in ("kind", "command", "pid", "slot", "generation", "signal")}
    assert facts == {
        "kind": "died",
        "command": request_,
        "pid": pid,
        "slot": 0,
        "generation": 1,
        "signal": name,
    }
    assert (event["status"], event["why"], event["limit_s"]) == (None, None, 30.0)
    assert event["ran_s"] >= 0
    server.wait_for("worker died")
    assert "Current thread" in server.wait_for("Current thread")
    lines = [server.wait_for(f" in {function}") for function in stack]
    assert all(line.startswith('      File "') for line in lines)
    assert abs(event["last"] - time.time()) < 60


@pytest.mark.both
def test_deaths_without_a_stack_have_none(launch: Launch, app: Path):
    server = launch(app, *QUICK)

    assert server.ask("LEAVE 3") == ""
    until(server, lambda found: len(found) == 1)
    server.until(lambda state: state["tally"]["idle"] == 1)
    os.kill(server.pids()[0], signal.SIGKILL)

    first, second = until(server, lambda found: len(found) == 2)
    assert (first["command"], first["status"], first["signal"], first["stack"]) == (
        "LEAVE",
        3,
        None,
        [],
    )
    assert (second["command"], second["signal"], second["stack"]) == (None, "SIGKILL", [])


def test_a_stack_that_was_asked_for_is_not_taken_for_that_of_a_crash(launch: Launch, app: Path):
    server = launch(app, "--workers", "1", "--slow-request", "0.05")

    end = app.with_name("end")
    with server.connect() as peer:
        peer.send(f"NAP_UNTIL {end}\n".encode())
        assert "NAP_UNTIL" in server.wait_for("slow request")
        end.touch()
        assert peer.line() == "awake"
    os.kill(server.pids()[0], signal.SIGBUS)  # of no code of its own
    (died,) = until(server, bool)
    server.until(lambda state: state["tally"]["idle"] == 1)
    end.unlink()
    with server.connect() as peer:
        peer.send(f"NAP_THEN_SEGV {end}\n".encode())
        assert "NAP_THEN_SEGV" in server.wait_for("slow request")
        end.touch()
        assert peer.rest() == b""
    after = until(server, lambda found: len(found) == 2)[1]
    server.until(lambda state: state["tally"]["idle"] == 1)
    server.ask("LEAVE 4")
    last = until(server, lambda found: len(found) == 3)[2]

    assert (died["signal"], died["command"]) == ("SIGBUS", None)
    assert "nap" not in functions(died)
    assert functions(after) == ["string_at", "nap_then_segv"]
    assert (last["status"], last["stack"]) == (4, [])


@pytest.mark.parametrize("enabled", ["in the app", "by the environment", "no"])
def test_the_crash_of_a_child_is_not_the_workers(launch: Launch, app: Path, enabled):
    top = "faulthandler.enable()" if enabled == "in the app" else ""
    app.write_text(APP.format(top=top, version=1))
    environment = {"PYTHONFAULTHANDLER": "1"} if enabled == "by the environment" else {}
    server = launch(app, *QUICK, environment=environment)

    status = int(server.ask("FORK_SEGV"))

    assert os.WTERMSIG(status) == signal.SIGSEGV
    if enabled != "no":
        server.wait_for("Fatal Python error: Segmentation fault")
    assert events(server) == []
    server.ask("LEAVE 3")
    assert until(server, bool)[0]["stack"] == []
    server.stop()
    assert server.text.count("Fatal Python error") == (enabled != "no")


def test_an_app_may_have_the_stacks_of_crashes_elsewhere(launch: Launch, app: Path, tmp_path: Path):
    top = """
@linepool.on_worker_start
def start() -> None:
    global file
    file = open("crashes", "a")
    faulthandler.enable(file)
"""
    app.write_text(APP.format(top=top, version=1))
    server = launch(app, *QUICK)

    server.ask("SEGV")

    (event,) = until(server, bool)
    assert (event["signal"], event["stack"]) == ("SIGSEGV", [])
    assert "in segv" in (tmp_path / "crashes").read_text()


# -- kills and timeouts


@pytest.mark.both
@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.linux("the client of a killed worker reads no error line")
def test_timeouts_and_kills_are_there_and_repeated_ones_are_counted(
    launch: Launch, app: Path, scheme
):
    # A busy machine interrupts a handler within the second; then it is not killed.
    options = ("--request-timeout", "0.2", "--kill-grace", "1")
    server = launch(app, *QUICK, *options)
    with server.connect() as peer:
        for _ in range(3):
            peer.send(b"@r=7f3a9c nap 100\n")
            assert "took longer than 0.2 s" in peer.line()
        assert peer.ask("version") == "1"
        timeout = until(server, lambda found: found and found[0]["count"] == 3)[0]
        peer.send(b"stuck\n")
        assert "the request was ended" in peer.line()

    _, killed = until(server, lambda found: len(found) == 2)
    assert (timeout["kind"], timeout["command"], timeout["id"]) == ("timeout", "NAP", "7f3a9c")
    assert timeout["limit_s"] == 0.2
    assert functions(timeout) == ["nap"]
    assert timeout["first"] < timeout["last"]
    assert timeout["ran_s"] >= 0.2
    assert re.fullmatch(r"127\.0\.0\.1:\d+", timeout["client"])
    assert (killed["kind"], killed["command"], killed["why"]) == (
        "killed",
        "STUCK",
        "took longer than 0.2 s",
    )
    assert (killed["client"], functions(killed)) == (timeout["client"], ["stuck"])
    assert killed["ran_s"] >= 1.2
    assert killed["number"] == timeout["number"] + 1


def test_a_request_that_survives_its_timeout_is_no_incident(launch: Launch, app: Path):
    app.write_text(
        APP.format(top="", version=1)
        + """
@linepool.handler
def patient() -> str:
    try:
        time.sleep(1000)
    except linepool.RequestTimeout:
        return "in time"
"""
    )
    server = launch(app, *QUICK, "--request-timeout", "0.1")

    assert server.ask("PATIENT") == "in time"
    server.ask("NAP 100")

    (event,) = until(server, bool)
    assert (event["command"], event["count"]) == ("NAP", 1)


@pytest.mark.both
def test_a_stream_that_is_overdue_is_there(launch: Launch, app: Path):
    app.write_text(
        APP.format(top="", version=1)
        + """
@linepool.handler
def parts():
    yield "first"
    time.sleep(1000)
    yield "second"
"""
    )
    server = launch(app, *QUICK, "--request-timeout", "0.2")
    with server.connect() as peer:
        peer.send(b"PARTS\n")
        assert peer.line() == "first"
        assert "took longer than 0.2 s" in peer.line()

    (event,) = until(server, bool)
    assert (event["kind"], event["command"], functions(event)) == ("timeout", "PARTS", ["parts"])


def test_an_operators_kill_is_there(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1")
    with server.connect() as peer:
        peer.send(b"HOLD it\n")
        gate.wait()
        server.order("KILL 0")
        assert "an operator killed" in peer.line()
        (event,) = until(server, bool)
    assert (event["kind"], event["command"]) == ("killed", "HOLD")
    assert functions(event)[-1] == "hold"


# -- the pool


def test_a_worker_that_does_not_become_ready_is_there(launch: Launch, app: Path):
    app.write_text(
        APP.format(top="", version=1)
        + """
@linepool.on_worker_start
def wait() -> None:
    if os.path.exists("slow"):
        time.sleep(1000)
"""
    )
    server = launch(app, *QUICK, "--spawn-timeout", "0.5")
    (server.directory / "slow").touch()
    os.kill(server.pids()[0], signal.SIGKILL)

    found = until(server, lambda found: len(found) >= 2)
    assert [one["kind"] for one in found[:2]] == ["died", "not_ready"]
    assert (found[1]["command"], found[1]["why"]) == (None, "was not ready in time")
    assert functions(found[1])[0] == "wait"


def test_saturation_is_one_incident(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1")
    with holding(server, 3):
        gate.wait(1)
        first = until(server, bool)[0]
        (lasting,) = until(server, lambda found: found[0]["last"] > first["last"])
        gate.open(3)

    assert (first["kind"], first["command"], first["count"]) == ("saturated", None, 1)
    assert "2 connections wait, and there are 1 of 1 workers" in first["why"]
    assert (lasting["number"], lasting["count"], lasting["first"]) == (1, 1, first["first"])


def test_a_parker_that_dies_and_forks_that_fail_are_there(launch: Launch):
    server = launch("workshop.py", "--workers", "1", "--respawn-backoff", "0.05")
    os.kill(server.status()["processes"]["parker"], signal.SIGKILL)
    (parker,) = until(server, bool)

    master = server.process.pid
    limits = resource.prlimit(master, resource.RLIMIT_NOFILE)
    (worker,) = server.pids()
    resource.prlimit(master, resource.RLIMIT_NOFILE, (4, limits[1]))
    os.kill(worker, signal.SIGKILL)
    for _ in range(2):
        server.wait_for("cannot fork: ")
    resource.prlimit(master, resource.RLIMIT_NOFILE, limits)
    found = events(server)

    assert (parker["kind"], parker["signal"]) == ("parker_died", "SIGKILL")
    assert [one["kind"] for one in found] == ["parker_died", "died", "cannot_fork"]
    assert found[2]["why"] == "Too many open files"
    assert found[2]["count"] > 1
    assert server.ask("ADD 2 3") == "5"


def test_reloads_that_fail_are_there(launch: Launch, app: Path):
    server = launch(app, *QUICK, "--incidents", "one")
    app.write_text("(")
    with contextlib.suppress(Exception):
        server.order("RELOAD")
    app.write_text(APP.format(top="", version=2) + "\nlinepool.run\n")
    server.order("RELOAD")

    (event,) = events(server)
    assert (event["kind"], event["generation"]) == ("reload_failed", 1)
    assert "SyntaxError" in event["why"]


# -- upgrade and restart


@pytest.mark.parametrize("kept", [(), ("--incidents", "file")], ids=["memory", "file"])
def test_incidents_outlive_an_upgrade(launch: Launch, app: Path, kept):
    server = launch(app, *QUICK, *kept, warm=False)
    server.ask("SEGV")
    before = until(server, bool)
    app.write_text(APP.format(top="", version=2) + "#")

    server.order("UPGRADE")
    server.ask("LEAVE 3")

    found = until(server, lambda found: len(found) == 2)
    assert found[0] == before[0]
    assert (found[1]["number"], found[1]["status"]) == (2, 3)
    if kept:
        assert "is in use by another server" in refusal(server, app)


def refusal(server: ServerProcess, app: Path, path: str = "file") -> str:
    """Return what another server says that is to use the same file."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "linepool", "run", str(app)),
            *("--bind", "unix:another", "--control", "off", "--incidents", path),
        ],
        cwd=server.directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_incidents_in_a_file_outlive_the_server(launch: Launch, app: Path, end):
    server = launch(app, *QUICK, "--incidents", "file")
    server.ask("SEGV")
    before = until(server, bool)
    if end == "killed":
        server.send(signal.SIGKILL)
    else:
        server.stop()
    server.ended()

    server = launch(app, *QUICK, "--incidents", "file")

    assert events(server) == before
    server.ask("SEGV")
    (counted,) = until(server, lambda found: found[0]["count"] == 2)
    assert counted["stack"] == before[0]["stack"]
    server.ask("LEAVE 1")
    assert until(server, lambda found: len(found) == 2)[1]["number"] == 2


def test_a_file_that_is_none_is_refused(launch: Launch, app: Path, tmp_path: Path):
    server = launch(app, *QUICK)

    assert "the directory" in refusal(server, app, "no/file")
    assert "exists and is not a file of incidents" in refusal(server, app, "app.py")


def test_a_reload_does_not_change_the_file(launch: Launch, app: Path, tmp_path: Path):
    settings = tmp_path / "linepool.toml"
    settings.write_text("incidents = 'one'\n")
    server = launch(app, *QUICK)
    settings.write_text("incidents = 'two'\n")

    with pytest.raises(Exception, match="incidents cannot change") as refused:
        server.order("RELOAD")

    assert "restart the server" in str(refused.value)
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()
    assert kinds(server) == ["reload_failed"]


# -- the command


def test_the_command_shows_what_the_control_socket_has(launch: Launch, app: Path):
    server = launch(app, *QUICK)
    nothing = linepool("events", "--control", server.control)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    server.ask("ABORT")
    until(server, bool)

    with talk(server) as peer:
        lines = peer.ask_lines("EVENTS")
        assert peer.ask("EVENTS json 1") == "[]"
        assert peer.ask("EVENTS json") == peer.ask("EVENTS json 0")
        assert peer.ask("EVENTS xml").startswith("CLIENT_ERROR form")
    shown = linepool("events", "--control", server.control).stdout.splitlines()
    with_stacks = linepool("events", "--stacks", "--control", server.control).stdout.splitlines()
    records = json.loads(linepool("events", "--json", "--control", server.control).stdout)

    assert lines == shown
    assert re.match(
        r"event number=1 at=\S+Z kind=died command=ABORT pid=\d+ slot=0 generation=1 ran_s=\S+ limit_s=30\.0"
        r" signal=SIGABRT in='inner \(.*app\.py:15\)'$",
        shown[0],
    ), shown
    assert with_stacks[0] == shown[0]
    assert [line.rpartition(" ")[2] for line in with_stacks[1:]] == ["inner", "abort"]
    assert list(records[0]) == [
        *("number", "change", "first", "last", "count", "kind", "command", "client", "pid", "slot"),
        *("generation", "ran_s", "limit_s", "signal", "status", "id", "why", "stack"),
    ]


@contextlib.contextmanager
def following(server: ServerProcess, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "linepool", "events", "-f", "--control", server.control]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_new_incidents_are_shown_as_they_come(launch: Launch, app: Path):
    server = launch(app, *QUICK)
    server.ask("LEAVE 3")
    until(server, bool)
    with following(server, "--json") as process:
        assert process.stdout
        first = json.loads(process.stdout.readline())
        server.ask("LEAVE 4")
        second = json.loads(process.stdout.readline())
        server.ask("LEAVE 4")
        again = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130

    assert (first["number"], first["status"]) == (1, 3)
    assert (second["number"], second["status"], second["count"]) == (2, 4, 1)
    assert (again["number"], again["count"]) == (2, 2)


def test_no_process_of_the_pool_has_the_descriptors(launch: Launch, app: Path):
    server = launch(app, *QUICK, "--incidents", "file")
    path = str(server.directory / "file")

    def has_file(pid: int) -> bool:
        return path in open_files(pid)

    assert has_file(server.process.pid)
    assert not any(has_file(pid) for pid in children_of(server.process.pid))
