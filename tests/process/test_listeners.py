"""Listeners: every kind of address, alone and together; Unix sockets and their files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import ENVIRONMENT, TIMEOUT, ServerProcess


def test_several_listeners_together_serve_and_stop(tmp_path, launch: Launch):
    bind = ("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/a", f"unix:{tmp_path}/b", "127.0.0.1:0")
    server = launch(
        "hooks.py", "--workers", "2", bind=bind, environment={"JOURNAL": str(tmp_path / "j")}
    )
    ports = [address.rpartition(":")[2] for address in server.addresses]

    for number, address in enumerate(server.addresses):
        with server.connect(number) as peer:
            peer.line()
            _, client, listener, _ = peer.ask("WHO").split()
            assert listener == address
            assert client == ("unix" if address.startswith("unix") else _own_address(peer.socket))

    assert server.addresses[1] == f"[::1]:{ports[1]}"
    assert server.addresses[2:4] == list(bind[2:4])
    assert "0" not in ports
    assert ports[0] != ports[4]
    assert [one["address"] for one in server.status()["listeners"]] == server.addresses
    assert server.stop() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j"]


@pytest.mark.scheme("accept")
def test_several_listeners_share_the_workers(launch: Launch):
    server = launch("workshop.py", "--workers", "3", bind=("127.0.0.1:0", "127.0.0.1:0"))
    peers = [server.connect(number % 2) for number in range(3)]

    assert len({peer.ask("PID") for peer in peers}) == 3
    for peer in peers:
        peer.close()


@pytest.mark.parametrize(("option", "mode"), [([], 0o600), (["--unix-mode", "660"], 0o660)])
def test_a_unix_socket_has_the_mode_that_was_asked_for(tmp_path, launch: Launch, option, mode):
    launch("workshop.py", "--workers", "1", *option, bind=(f"unix:{tmp_path}/s",))

    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode


def test_a_mode_that_is_text_in_a_file_is_octal(tmp_path, launch: Launch):
    (tmp_path / "linepool.toml").write_text("unix_mode = '440'\n")

    launch("workshop.py", "--workers", "1", bind=(f"unix:{tmp_path}/s",))

    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o440


@pytest.mark.parametrize(("value", "mode"), [("440", 0o440), ("660", 0o660), ("0o440", 0o440)])
def test_a_mode_that_is_a_number_in_a_file_is_taken_as_written_or_refused(
    tmp_path, launch: Launch, value, mode
):
    (tmp_path / "linepool.toml").write_text(f"unix_mode = {value}\n")

    server = launch("workshop.py", "--workers", "1", bind=(f"unix:{tmp_path}/s",), ready=False)

    if any(line.startswith("ready:") for line in server.lines()):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
    else:
        assert "unix_mode" in server.text
        assert server.ended() == 2


def test_the_socket_of_a_dead_server_is_replaced(tmp_path, launch: Launch):
    bind = (f"unix:{tmp_path}/s",)
    first = launch("workshop.py", "--workers", "1", bind=bind)
    first.send(signal.SIGKILL)
    assert first.ended() == -signal.SIGKILL
    assert (tmp_path / "s").exists()

    second = launch("workshop.py", "--workers", "1", bind=bind)

    assert second.ask("ADD 2 3") == "5"
    assert second.stop() == 0
    assert not (tmp_path / "s").exists()


def test_the_socket_of_a_live_server_is_left_alone(tmp_path, launch: Launch):
    bind = (f"unix:{tmp_path}/s",)
    first = launch("workshop.py", "--workers", "1", bind=bind)
    second = launch("workshop.py", "--workers", "1", bind=bind, ready=False)

    assert second.ended() == 1
    assert "another server listens there" in second.text
    assert first.ask("ADD 2 3") == "5"


def test_a_stop_does_not_remove_the_socket_of_a_successor(tmp_path, launch: Launch):
    bind = (f"unix:{tmp_path}/s",)
    first = launch("workshop.py", "--workers", "1", bind=bind)
    (tmp_path / "s").unlink()
    second = launch("workshop.py", "--workers", "1", bind=bind)

    assert first.stop() == 0

    assert second.ask("ADD 2 3") == "5"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
@pytest.mark.parametrize("count", [1, 2])
def test_an_inherited_socket_is_served(tmp_path, launch: Launch, family, count):
    with socket.socket(family) as given:
        given.bind(("127.0.0.1", 0) if family == socket.AF_INET else f"{tmp_path}/s")
        given.listen()
        with socket.socket(family) as early:
            early.settimeout(TIMEOUT)
            early.connect(given.getsockname())
            early.sendall(b"ADD 2 3\n")
            bind = (f"fd://{given.fileno()}", "127.0.0.1:0")[:count]
            server = launch("workshop.py", "--workers", "2", bind=bind, pass_fds=[given.fileno()])

            assert early.recv(100) == b"5\n"
        name = given.getsockname()
        name = f"unix:{name}" if family == socket.AF_UNIX else "{}:{}".format(*name)
        assert server.addresses[0] == name
        assert server.ask("ADD 3 3") == "6"
        assert server.stop() == 0
    # The socket file is removed by the process that created it.
    assert (tmp_path / "s").exists() == (family == socket.AF_UNIX)


def test_an_address_can_be_listened_on_again_at_once(launch: Launch):
    first = launch("workshop.py", "--workers", "1")
    with first.connect() as peer:
        assert peer.ask("ADD 2 3") == "5"
        assert first.stop() == 0  # the server closes first, so the connection stays in TIME_WAIT

    second = launch("workshop.py", "--workers", "1", bind=(first.addresses[0],))

    assert second.ask("ADD 2 3") == "5"


def test_a_host_name_is_resolved(launch: Launch):
    server = launch("workshop.py", "--workers", "1", bind=("localhost:0",))

    assert server.ask("ADD 2 3") == "5"


def test_many_connections_one_after_another(launch: Launch):
    server = launch("workshop.py", "--workers", "2", bind=("127.0.0.1:0", "127.0.0.1:0"))

    for number in range(600):
        with server.connect(number % 2) as peer:
            assert peer.ask(f"ADD {number} 1") == str(number + 1)

    # A worker records the end of a connection after the client has seen it.
    state = server.until(lambda state: state["connections"]["hot"] == 0)
    assert state["counters"]["connections"] == 600
    assert state["counters"]["requests"] == 600


# -- IPv6 and IPv4

WHO = "import linepool\n@linepool.handler\ndef who(s: linepool.Session): return [s.peer, s.listener]\n"


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_the_ipv6_wildcard_serves_ipv4_too_and_says_so(tmp_path, launch: Launch):
    (tmp_path / "who.py").write_text(WHO)

    server = launch("who.py", "--workers", "1", bind=("[::]:0",))

    assert server.addresses == [f"[::]:{server.addresses[1][8:]}", server.addresses[1]]
    assert server.addresses[1].startswith("0.0.0.0:")
    for address in (f"127.0.0.1:{server.port}", f"[::1]:{server.port}"):
        with Peer(address) as peer:
            assert peer.ask_lines("WHO") == [_own_address(peer.socket), server.address]
    assert [one["address"] for one in server.status()["listeners"]] == [server.address]
    assert server.stop() == 0


@pytest.mark.parametrize("ipv4", ["0.0.0.0", "127.0.0.1"])
@pytest.mark.parametrize("is_first", [False, True])
def test_the_same_port_can_be_given_for_ipv4_and_ipv6(tmp_path, launch: Launch, ipv4, is_first):
    (tmp_path / "who.py").write_text(WHO)
    with socket.create_server(("", 0)) as probe:
        port = probe.getsockname()[1]
    bind = (f"[::]:{port}", f"{ipv4}:{port}")
    bind = bind[::-1] if is_first else bind

    server = launch("who.py", "--workers", "1", bind=bind)

    assert server.addresses == list(bind)
    for address, listener in (
        (f"127.0.0.1:{port}", f"{ipv4}:{port}"),
        (f"[::1]:{port}", f"[::]:{port}"),
    ):
        with Peer(address) as peer:
            assert peer.ask_lines("WHO") == [_own_address(peer.socket), listener]


# -- abstract sockets


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_an_abstract_socket_is_served_and_leaves_no_file(tmp_path, launch: Launch):
    bind = (f"unix:@linepool-test-{os.getpid()}",)
    server = launch("workshop.py", "--workers", "1", bind=bind)

    assert server.addresses == list(bind)
    assert server.ask("ADD 2 3") == "5"
    assert [one["address"] for one in server.status()["listeners"]] == list(bind)
    second = launch("workshop.py", bind=bind, ready=False)
    assert second.ended() == 1
    assert f"cannot listen on {bind[0]}: Address already in use" in second.text
    assert not any("@" in one.name for one in tmp_path.iterdir())
    assert server.stop() == 0


def test_a_path_that_begins_with_an_at_sign_is_a_file(tmp_path, launch: Launch):
    server = launch("workshop.py", "--workers", "1", bind=("unix:./@s",))

    assert server.ask("ADD 2 3") == "5"
    assert stat.S_ISSOCK((tmp_path / "@s").stat().st_mode)


# -- sockets of systemd

# Passes the sockets in its first word, as systemd does, and becomes a server in the same process.
ACTIVATE = """
import os, sys
for place, number in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(number, place, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid() + {wrong_pid}), LISTEN_FDS=str(place - 2), LISTEN_FDNAMES="a:b")
os.execv(sys.executable, [sys.executable, "-P", "-m", "linepool", "run", *sys.argv[2:]])
"""
MENTION = (
    "import os, linepool\n@linepool.handler\ndef mention():\n"
    "    return [name for name in os.environ if name.startswith('LISTEN_')]\n"
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


def activated(
    launch: Launch,
    tmp_path: Path,
    given: Sequence[IO[bytes] | socket.socket],
    *options: str,
    **more: object,
) -> ServerProcess:
    (tmp_path / "mention.py").write_text(MENTION)
    (tmp_path / "activate.py").write_text(ACTIVATE.format(wrong_pid=more.pop("wrong_pid", 0)))
    numbers = [sock.fileno() for sock in given]
    command = ("activate.py", ",".join(map(str, numbers)))
    return launch(
        "mention.py", *options, **{"command": command, "bind": (), "pass_fds": numbers, **more}
    )


def test_the_sockets_of_systemd_are_served_and_not_mentioned_to_the_app(tmp_path, launch, given):
    server = activated(launch, tmp_path, given, "--workers", "1")

    host, port = given[0].getsockname()
    assert server.addresses == [f"{host}:{port}", f"unix:@{given[1].getsockname()[1:].decode()}"]
    for address in server.addresses:
        with Peer(address) as peer:
            assert peer.ask_lines("MENTION") == []
    assert server.stop() == 0


def test_the_sockets_of_systemd_are_not_served_beside_an_explicit_address(tmp_path, launch, given):
    server = activated(launch, tmp_path, given, "--workers", "1", bind=("127.0.0.1:0",))

    assert str(given[0].getsockname()[1]) not in server.address
    assert "the sockets of LISTEN_FDS are not served: bind is given (command line)" in server.text
    with server.connect() as peer:
        assert peer.ask_lines("MENTION") == []


def test_the_sockets_of_another_process_are_not_served(tmp_path, launch, given):
    bind = "bind = '127.0.0.1:0'\n"  # in a file, which LISTEN_FDS would override
    (tmp_path / "linepool.toml").write_text(bind)

    server = activated(launch, tmp_path, given, "--workers", "1", wrong_pid=1)

    assert str(given[0].getsockname()[1]) not in server.address
    assert "LISTEN_FDS is meant for the process" in server.text


@pytest.mark.parametrize("kind", ["datagram", "connection", "file"])
def test_what_is_not_a_listener_is_refused_by_name(tmp_path, launch, given, kind):
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
def test_systemd_can_start_a_server_at_the_first_connection(tmp_path):
    (tmp_path / "mention.py").write_text(MENTION)
    words = ["systemd-socket-activate", "-l", str(tmp_path / "s"), sys.executable, "-P", "-m"]
    words += ["linepool", "run", "mention.py", "--workers", "1", "--control", "off"]
    with subprocess.Popen(
        words, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            assert "Listening on" in process.stderr.readline()
            with Peer(f"unix:{tmp_path}/s") as peer:
                assert peer.ask_lines("MENTION") == []
            process.send_signal(signal.SIGTERM)
            assert f"listening on unix:{tmp_path}/s" in process.stderr.read()
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


def _own_address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
