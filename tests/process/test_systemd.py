"""Servers that systemd, or a program like it, has started: its sockets, and what it is told."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.connections import open_files
from tests.servers import ENVIRONMENT, TIMEOUT, ServerProcess
from tests.service_manager import NotifyReceiver

# Passes the descriptors in its first word, as systemd does, and becomes a server in the same process. The
# second word is LISTEN_FDNAMES.
ACTIVATE = """
import os, sys
for place, number in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(number, place, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid() + {wrong_pid}), LISTEN_FDS=str(place - 2))
if sys.argv[2]:
    os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.executable, [sys.executable, "-P", "-m", "linepool", "run", *sys.argv[3:]])
"""
MENTION = (
    "import os, linepool\n@linepool.handler\ndef mention():\n"
    "    return [name for name in os.environ if name.startswith(('LISTEN_', 'NOTIFY_', 'WATCHDOG_'))]\n"
)


@pytest.fixture
def given() -> Iterator[list[socket.socket]]:
    """Give an open listener of each kind, under numbers that the server's own do not take."""
    with contextlib.ExitStack() as stack:
        made: list[socket.socket] = []
        for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, "")):
            sock = stack.enter_context(socket.socket(family))
            sock.bind(address)  # a unix socket gets an abstract name (unix(7), autobind)
            sock.listen()
            copy = os.dup2(sock.fileno(), 90 + len(made))
            made.append(stack.enter_context(socket.socket(fileno=copy)))
        yield made


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[NotifyReceiver]:
    """Give a notify socket."""
    with NotifyReceiver(tmp_path / "notify") as receiver:
        yield receiver


def activated(
    launch: Launch,
    tmp_path: Path,
    given: Sequence[IO[bytes] | socket.socket],
    *options: str,
    names: str = "",
    **more: object,
) -> ServerProcess:
    (tmp_path / "mention.py").write_text(MENTION)
    (tmp_path / "activate.py").write_text(ACTIVATE.format(wrong_pid=more.pop("wrong_pid", 0)))
    numbers = [sock.fileno() for sock in given]
    command = ("activate.py", ",".join(map(str, numbers)), names)
    return launch(
        "mention.py", *options, **{"command": command, "bind": (), "pass_fds": numbers, **more}
    )


# -- sockets


def test_sockets_are_served_others_closed_and_nothing_is_mentioned_to_the_app(
    tmp_path, launch, given, receiver
):
    with open(tmp_path / "stored", "wb") as stored:
        server = activated(
            launch,
            tmp_path,
            [given[0], stored, given[1]],
            "--workers",
            "1",
            names="web:board:local",
            environment={"NOTIFY_SOCKET": receiver.path, "WATCHDOG_USEC": "3600000000"},
        )

    host, port = given[0].getsockname()
    assert server.addresses == [f"{host}:{port}", f"unix:@{given[1].getsockname()[1:].decode()}"]
    for address in server.addresses:
        with Peer(address) as peer:
            assert peer.ask_lines("MENTION") == []
    assert "closed a descriptor that is not a listener fd=4 socket='board'" in server.text
    assert receiver.until("FDSTOREREMOVE", "1") == {"FDSTOREREMOVE": "1", "FDNAME": "board"}
    copies = open_files(server.process.pid).count(str(stored.name))
    assert copies == 1  # the one from which it was passed
    assert server.stop() == 0


def test_a_name_in_bind_is_that_socket_and_a_warning_names_the_others(tmp_path, launch, given):
    bind = ("127.0.0.1:0", "systemd:local")
    server = activated(launch, tmp_path, given, "--workers", "1", bind=bind, names="web:local")

    assert str(given[0].getsockname()[1]) not in server.address
    assert server.addresses[1:] == [f"unix:@{given[1].getsockname()[1:].decode()}"]
    assert (
        "sockets of LISTEN_FDS are not served, for bind is given (command line): systemd:web"
        in server.text
    )
    with server.connect() as peer:
        assert peer.ask_lines("MENTION") == []


def test_an_unknown_name_is_a_usage_error(tmp_path, launch, given):
    bind = ("systemd:www",)
    server = activated(launch, tmp_path, given, bind=bind, names="web:local", ready=False)

    assert server.ended() == 2
    assert server.log == ["linepool: bind: no socket has the name 'www'; there are web, local"]


def test_the_sockets_of_another_process_are_not_served(tmp_path, launch, given):
    bind = "bind = '127.0.0.1:0'\n"  # in a file, which LISTEN_FDS would override
    (tmp_path / "linepool.toml").write_text(bind)

    server = activated(launch, tmp_path, given, "--workers", "1", wrong_pid=1)

    assert str(given[0].getsockname()[1]) not in server.address
    assert "LISTEN_FDS is meant for the process" in server.text


@pytest.mark.parametrize("kind", ["datagram", "connection", "file"])
def test_what_is_not_a_listener_and_has_no_name_is_refused(tmp_path, launch, given, kind):
    with contextlib.ExitStack() as stack:
        other: IO[bytes] | socket.socket
        if kind == "datagram":
            other = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        elif kind == "connection":
            other = stack.enter_context(socket.create_connection(given[0].getsockname()))
        else:
            other = stack.enter_context(open(os.devnull, "rb"))

        server = activated(launch, tmp_path, [given[0], other], ready=False)

        assert server.ended() == 1
    reason = {
        "datagram": "it is not a stream socket",
        "connection": "it is a connection, not a listener (for systemd: Accept=no)",
        "file": "Socket operation on non-socket",
    }
    assert [f"linepool: cannot listen on fd://4: {reason[kind]}"] == server.log


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="no systemd")
def test_systemd_starts_a_server_at_the_first_connection_and_names_its_sockets(tmp_path):
    (tmp_path / "mention.py").write_text(MENTION)
    words = ["systemd-socket-activate", "-l", f"{tmp_path}/s", "-l", f"{tmp_path}/t"]
    words += ["--fdname=web:other", sys.executable, "-P", "-m", "linepool", "run", "mention.py"]
    words += ["--workers", "1", "--control", "off", "--bind", "systemd:web"]
    with subprocess.Popen(
        words, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            assert "Listening on" in process.stderr.readline()
            with Peer(f"unix:{tmp_path}/s") as peer:
                assert peer.ask_lines("MENTION") == []
            process.send_signal(signal.SIGTERM)
            text = process.stderr.read()
            assert f"listening on unix:{tmp_path}/s" in text
            assert f"listening on unix:{tmp_path}/t" not in text
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


# -- what it is told


def test_the_life_of_a_server_is_told(tmp_path, launch, receiver):
    boot = tmp_path / "boot"
    boot.write_text("wait")
    os.mkfifo(f"{boot}.fifo")
    environment = {
        "BOOT": str(boot),
        "NOTIFY_SOCKET": receiver.path,
        "WATCHDOG_USEC": "200000",
    }
    server = launch("boots.py", "--workers", "2", ready=False, environment=environment)
    server.wait_for("listening on")

    receiver.until("WATCHDOG", "1")  # its loop runs
    receiver.waiting()
    assert not any("READY" in notice for notice in receiver.notices)
    assert receiver.notices[0]["STATUS"].startswith("starting; ")

    with open(f"{boot}.fifo", "r+b", buffering=0):  # its workers come up
        ready = receiver.until("READY", "1")
    assert ready["STATUS"] == "2 workers, 0 busy, generation 1"
    boot.unlink()
    server.order("SCALE 3")
    receiver.until("STATUS", "3 workers, 0 busy, generation 1")
    receiver.until("WATCHDOG", "1")
    server.send(signal.SIGHUP)
    assert int(receiver.until("RELOADING", "1")["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert receiver.until("READY", "1")["STATUS"].endswith(" busy, generation 2")
    server.send(signal.SIGTERM)
    assert receiver.until("STOPPING", "1")["EXTEND_TIMEOUT_USEC"] == "40000000"
    assert server.ended() == 0


def test_a_notify_socket_that_is_gone_harms_nothing(tmp_path, launch):
    environment = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "200000"}
    server = launch("workshop.py", "--workers", "1", environment=environment)

    assert server.ask("ADD 1 2") == "3"
    assert "cannot notify the service manager: No such file or directory" in server.text
    assert server.stop() == 0
