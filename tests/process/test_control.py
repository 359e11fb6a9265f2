"""The control socket, and the command-line commands that use it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool import __version__, cli, core
from linepool.operate import remote
from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import ENVIRONMENT, TIMEOUT, Gate, ServerProcess

WORKER_KEYS = [
    "slot",
    "pid",
    "generation",
    "state",
    "since_s",
    "requests",
    "connections",
    "busy_ratio",
    "rss_bytes",
    "command",
    "request_s",
    "timeout_s",
]
COUNTERS = [
    "requests",
    "errors",
    "connections",
    "timeouts",
    "kills",
    "crashes",
    "recycled",
    "spawned",
    "retired",
    "refused",
    "braked",
    "dropped",
    "denied",
    "limited",
    "handshakes_failed",
    "saturated_s",
]


def linepool(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of linepool."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "linepool", *words],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def talk(server: ServerProcess) -> Peer:
    """Connect to the control socket of a server."""
    return Peer(f"unix:{server.control}")


# -- its replies


@pytest.mark.scheme("accept")
@pytest.mark.linux("without TCP_INFO the length of the backlog is not known")
def test_status_has_exactly_the_promised_keys(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "2:4", bind=("127.0.0.1:0", "unix:s"))
    with server.connect() as busy, server.connect() as idle:
        assert idle.ask("ADD 2 3") == "5"
        assert idle.ask("FAIL").startswith("SERVER_ERROR")
        busy.send(b"HOLD secret words\n")
        gate.wait()
        server.until(lambda state: state["tally"]["idle"] == 1)
        with talk(server) as peer:
            state = json.loads(peer.ask("STATUS json"))
        gate.open()

    assert list(state) == [
        "name",
        "version",
        "pid",
        "uptime_s",
        "state",
        "core",
        "generation",
        "processes",
        "scheme",
        "listeners",
        "limits",
        "tally",
        "connections",
        "waiting",
        "waiters",
        "counters",
        "brakes",
        "bans",
        "workers",
    ]
    assert (state["name"], state["version"]) == ("workshop", __version__)
    assert state["core"] == ("compiled" if core.compiled else "pure")
    assert (state["pid"], state["generation"]) == (server.process.pid, 1)
    assert state["scheme"] == "accept"
    assert 0 < state["uptime_s"] < 60
    assert [list(one) for one in state["listeners"]] == [["address", "backlog", "backlog_max"]] * 2
    assert [one["address"] for one in state["listeners"]] == server.addresses
    assert state["listeners"][0]["backlog_max"] == 1024
    assert state["tally"] == {
        "starting": 0,
        "idle": 1,
        "busy": 2,
        "leaving": 0,
        "total": 3,
        "min": 2,
        "max": 4,
    }
    assert list(state["limits"]) == ["cpus", "memory_bytes"]
    assert state["limits"]["cpus"] > 0
    assert list(state["tally"]) == ["starting", "idle", "busy", "leaving", "total", "min", "max"]
    assert state["connections"] == {"hot": 2, "parked": 0}
    assert state["waiting"] == 0
    assert state["waiters"] == {"requests": 0, "oldest_s": None, "topics": []}
    assert list(state["counters"]) == COUNTERS
    wanted = {"requests": 2, "errors": 1, "connections": 2, "spawned": 3}
    assert {name: count for name, count in state["counters"].items() if count} == wanted
    assert [list(worker) for worker in state["workers"]] == [WORKER_KEYS] * 3
    assert [worker["slot"] for worker in state["workers"]] == [0, 1, 2]
    (held,) = [worker for worker in state["workers"] if worker["command"]]
    assert held["command"] == "HOLD"
    assert (held["state"], held["requests"], held["connections"]) == ("busy", 0, 1)
    assert 0 < held["request_s"] < 60
    assert held["rss_bytes"] > 1_000_000
    assert 0 <= held["busy_ratio"] <= 1


def test_status_without_json_is_for_people(launch: Launch):
    server = launch("workshop.py", "--workers", "2")

    with talk(server) as peer:
        lines = peer.ask_lines("status")

    assert lines[0] == "name workshop"
    assert f"listener address={server.addresses[0]} backlog=0 backlog_max=1024" in lines
    assert "tally starting=0 idle=2 busy=0 leaving=0 total=2 min=2 max=2" in lines
    assert sum(line.startswith("worker slot=") for line in lines) == 2


def test_wrong_commands_are_answered_and_change_nothing(launch: Launch):
    server = launch("workshop.py", "--workers", "2")
    with talk(server) as peer:
        assert peer.ask("ADD 2 3").startswith("ERROR unknown command 'ADD'")
        assert peer.ask("STATUS xml").startswith("CLIENT_ERROR form")
        assert peer.ask("SCALE").startswith("CLIENT_ERROR")
        assert peer.ask("SCALE 0").startswith("CLIENT_ERROR")
        assert peer.ask("STOP tomorrow").startswith("CLIENT_ERROR how")
        assert peer.ask('STATUS "').startswith("CLIENT_ERROR")
        assert peer.ask("\0").startswith(("CLIENT_ERROR", "ERROR"))
        assert {line.split()[0] for line in peer.ask_lines("HELP")} >= {
            "STATUS",
            "SCALE",
            "STOP",
            "HELP",
            "QUIT",
        }
        assert peer.ask("QUIT") == "OK"
        assert peer.line() == ""
    assert server.status()["tally"]["idle"] == 2


def test_the_control_socket_is_for_its_owner_only_and_is_removed_with_the_server(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    assert stat.S_IMODE(os.stat(server.control).st_mode) == 0o600

    with talk(server) as peer:
        assert peer.ask("STOP") == "stopping gracefully"

    assert server.ended() == 0
    assert not os.path.exists(server.control)


def test_pipelined_commands_are_answered_in_order(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    with talk(server) as peer:
        peer.send(b"SCALE +1\nSCALE +1\nFRO\nSCALE 1\nSTOP")

        assert peer.line() == "workers 2"
        assert peer.line() == "workers 3"
        assert peer.line().startswith("ERROR")
        assert peer.line() == "workers 1"
        assert not peer.rest().startswith(b"stopping")
    assert server.ask("ADD 2 3") == "5"


# -- clients that do not read, send garbage or leave


def fill(sock: socket.socket, data: bytes, most: int) -> None:
    """Send up to ``most`` bytes; stop when the socket is full or the server closes it."""
    sock.settimeout(0.2)
    sent = 0
    with contextlib.suppress(OSError):
        while sent < most:
            sent += sock.send(data)


def test_misbehaving_clients_do_not_hold_up_the_master(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    with talk(server) as deaf, talk(server) as endless, talk(server) as quitter, talk(server):
        fill(deaf.socket, b"STATUS json\n" * 100, 2_000_000)
        fill(endless.socket, b"x" * 65536, 10_000_000)
        fill(quitter.socket, b"HELP\n" * 1000 + b"QUIT\n" + b"x" * 10_000, 20_000_000)

        assert server.status()["tally"]["idle"] == 1
        before = _resident(server.process.pid)
        fill(quitter.socket, b"x" * 65536, 20_000_000)
        assert _resident(server.process.pid) - before < 10_000_000
        assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0


def test_many_silent_clients_do_not_lock_the_operator_out(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    last = socket.socket(socket.AF_UNIX)
    with contextlib.ExitStack() as stack, last:
        for _ in range(40):  # a connect waits while the backlog is full
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.connect(server.control)
        last.connect(server.control)

        last.settimeout(TIMEOUT)
        last.sendall(b"SCALE 2\n")
        assert last.recv(100) == b"workers 2\n"


def test_a_client_that_leaves_during_a_reply_leaves_no_descriptor(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    before = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    for words in (b"", b"STATUS json\n" * 50, b"STAT"):
        with talk(server) as peer:
            peer.send(words)

    server.until(lambda _: len(os.listdir(f"/proc/{server.process.pid}/fd")) <= before + 1)


# -- the command line


def test_the_command_line_uses_the_server_that_control_names(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    control = ("--control", server.control)

    assert json.loads(linepool("status", "--json", *control).stdout)["pid"] == server.process.pid
    assert "name workshop" in linepool("status", *control).stdout
    assert linepool("scale", "+2", *control).stdout == "workers 3\n"
    assert linepool("scale", "-1", *control).stdout == "workers 2\n"
    assert linepool("scale", "1:4", *control).stdout == "workers 1:4\n"
    refused = linepool("scale", "0", *control)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "must be N or MIN:MAX" in refused.stderr
    assert linepool("stop", *control).stdout == "stopping gracefully\n"
    assert server.ended() == 0
    gone = linepool("status", *control)
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"linepool: cannot reach a server at {server.control}")


def test_stop_now_ends_a_busy_worker(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1")
    with server.connect() as peer:
        peer.send(b"HOLD x\n")
        gate.wait()

        assert linepool("stop", "--now", "--control", server.control).returncode == 0

        assert server.ended() == 0
        assert peer.line() != "x"


def test_without_control_the_only_server_is_found(
    launch: Launch, tmp_path: Path, monkeypatch, capsys
):
    # Other servers of this user may run on this machine meanwhile.
    monkeypatch.setattr(remote, "searched", lambda: [f"{tmp_path}/linepool"])

    def run(*words: str) -> tuple[int, str, str]:
        return (cli.main(words), *capsys.readouterr())

    status, _, stderr = run("status")
    assert status == 1
    assert "no server is running" in stderr

    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    options = ("--workers", "1", "--control", "auto")
    first = launch("workshop.py", *options, environment=runtime)
    first.control = f"{tmp_path}/linepool/{first.process.pid}.sock"
    assert stat.S_IMODE(os.stat(f"{tmp_path}/linepool").st_mode) == 0o700
    assert json.loads(run("status", "--json")[1])["pid"] == first.process.pid

    second = launch("workshop.py", *options, environment=runtime)
    second.control = f"{tmp_path}/linepool/{second.process.pid}.sock"
    status, _, stderr = run("stop")
    assert status == 1
    assert first.control in stderr
    assert second.control in stderr

    second.send(signal.SIGKILL)
    second.ended()
    assert run("scale", "2")[1] == "workers 2\n"
    assert not os.path.exists(second.control)
    assert run("stop")[0] == 0
    assert first.ended() == 0


@contextlib.contextmanager
def impostor(path: Path, reply: bytes) -> Iterator[None]:
    """Listen at a path, send the first client a reply, and close the connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()

        def answer() -> None:
            client, _ = sock.accept()
            with client:
                client.recv(100)
                client.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


STRANGE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\n\r\x7f"
STATES = [
    json.dumps({"name": STRANGE, STRANGE: 1, "workers": [{"state": STRANGE}, {STRANGE: 1}]}),
    json.dumps({"workers": [STRANGE], "tally": {STRANGE: STRANGE}, "counters": [1, {}]}),
    json.dumps([STRANGE]),
    f"SERVER_ERROR {STRANGE}",
    STRANGE,
    "[" * 100_000,
    "9" * 100_000,
]


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("stop",), ("scale", "2")])
@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
def test_what_a_server_says_reaches_the_terminal_only_as_printable_lines(
    tmp_path, capsys, words, state
):
    with impostor(tmp_path / "c", state.encode() + b"\nnext line\n"):
        cli.main([*words, "--control", str(tmp_path / "c")])

    shown = "".join(capsys.readouterr())
    assert shown.replace("\n", "").isprintable()
    assert "next line" not in shown


def test_what_a_server_says_is_shown_whatever_the_terminal_can_show(tmp_path):
    with impostor(tmp_path / "c", b'{"name": "caf\xc3\xa9 \\ud800"}\n'):
        done = linepool("status", "--control", str(tmp_path / "c"), PYTHONIOENCODING="ascii")

    assert (done.stdout, done.stderr) == ("name caf\\xe9 \\ud800\n", "")


def test_a_server_is_found_from_a_session_with_another_environment(launch: Launch, tmp_path: Path):
    server = launch("workshop.py", "--control", "auto", environment={"XDG_RUNTIME_DIR": ""})
    (line,) = [line for line in server.log if "control socket path=" in line]
    server.control = line.partition("path=")[2]

    done = linepool("status", "--json", XDG_RUNTIME_DIR=str(tmp_path))

    # Other servers of this user may run on this machine meanwhile.
    assert server.control in done.stderr or json.loads(done.stdout)["pid"] == server.process.pid


@pytest.mark.parametrize("source", ["environment", "file"])
def test_the_commands_use_the_control_socket_that_the_settings_give(
    launch: Launch, tmp_path: Path, monkeypatch, capsys, source
):
    server = launch("workshop.py", "--workers", "1")
    monkeypatch.chdir(tmp_path)
    if source == "environment":
        monkeypatch.setenv("LINEPOOL_CONTROL", server.control)
        (tmp_path / "linepool.toml").write_text("control =")
    else:
        (tmp_path / "linepool.toml").write_text(f"control = '{server.control}'\n")

    assert cli.main(["status", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["pid"] == server.process.pid
    monkeypatch.setenv("LINEPOOL_CONTROL", "off")
    cli.main(["status", "--json"])
    assert f'"pid": {server.process.pid},' not in capsys.readouterr().out


def test_no_servers_are_looked_for_where_other_users_can_write(launch: Launch, tmp_path: Path):
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    server = launch("workshop.py", "--control", "auto", environment=runtime)
    server.control = f"{tmp_path}/linepool/{server.process.pid}.sock"
    os.chmod(tmp_path / "linepool", 0o777)

    done = linepool("status", "--json", **runtime)

    assert server.control not in done.stderr
    assert f'"pid": {server.process.pid},' not in done.stdout
    os.chmod(tmp_path / "linepool", 0o700)
    found = linepool("status", "--json", **runtime)
    assert server.control in found.stderr or json.loads(found.stdout)["pid"] == server.process.pid


@pytest.mark.parametrize("words", [("stop",), ("status", "--json")])
@pytest.mark.parametrize("reply", [b"", b"SERVER_ERROR tired\n", b"\xff\xfe\n"])
def test_a_server_that_does_not_answer_is_reported_in_one_line(tmp_path, words, reply):
    with impostor(tmp_path / "s", reply):
        done = linepool(*words, "--control", str(tmp_path / "s"))

    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("linepool: ")


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
