"""Listeners: every kind of address, alone and together; Unix sockets and their files."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat

import pytest

from linepool.operate.shown_at_terminal import state_at_terminal
from linepool.testing import Peer
from tests.certificates import Authority
from tests.conftest import Launch
from tests.servers import TIMEOUT, ServerProcess


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


def _own_address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def test_two_servers_share_a_port_only_if_both_say_so(launch: Launch):
    shared = ("--workers", "1", "--reuseport", "on")
    first = launch("workshop.py", *shared)
    second = launch("workshop.py", *shared, bind=(first.address,))

    assert second.address == first.address
    third = launch("workshop.py", "--workers", "1", bind=(first.address,), ready=False)
    third.wait_for("Address already in use")


@pytest.mark.parametrize(
    ("family", "text"),
    [(socket.AF_INET, " for IPv4, which [::] serves too"), (socket.AF_INET6, "")],
)
def test_a_dual_stack_port_that_another_process_has_is_named(launch: Launch, family, text):
    with socket.socket(family) as taken:
        if family == socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("", 0))
        taken.listen()
        address = f"[::]:{taken.getsockname()[1]}"
        server = launch("workshop.py", bind=(address,), ready=False)

        assert server.ended() == 1
    assert f"cannot listen on {address}: Address already in use{text}\n" in f"{server.text}\n"


def test_an_address_that_another_one_of_the_server_includes_is_named(launch: Launch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bind = (f"0.0.0.0:{port}", f"127.0.0.1:{port}")
    server = launch("workshop.py", bind=bind, ready=False)

    assert server.ended() == 1
    why = f"bind has {bind[0]} too; give one of the two"
    assert f"cannot listen on {bind[1]}: {why}\n" in f"{server.text}\n"


def test_an_address_that_another_process_has_is_not_taken_for_the_servers_own(launch: Launch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bind = (f"127.0.0.2:{port}", f"127.0.0.1:{port}")
        server = launch("workshop.py", bind=bind, ready=False)

        assert server.ended() == 1
    assert f"cannot listen on {bind[1]}: Address already in use\n" in f"{server.text}\n"


def test_status_says_what_a_listener_has_beside_its_address(tmp_path, launch: Launch):
    certificate = Authority(tmp_path).certificate("server", "DNS:localhost")
    tls = f'tls_cert = "{certificate}"\n'
    listener = '[[listener]]\nbind = "127.0.0.1:0"\n'
    (tmp_path / "linepool.toml").write_text(
        f"{listener}"
        f'{listener}name = "sealed"\n{tls}'
        f'{listener}name = "mail"\n{tls}starttls = true\n'
        f'{listener}name = "office"\nproxy_from = "127.0.0.1"\n{tls}'
    )
    server = launch("workshop.py", "--workers", "1", bind=())

    listeners = server.status()["listeners"]
    found = [(one["name"], one.get("tls"), one.get("proxy")) for one in listeners]
    assert found == [
        ("workshop", None, None),
        ("sealed", "on", None),
        ("mail", "starttls", None),
        ("office", "on", True),
    ]
    shown = " ".join(" ".join(state_at_terminal(server.status())).split())
    for text in "(workshop)", "(sealed, app workshop, TLS)", "(mail, app workshop, STARTTLS)":
        assert text in shown
    assert "(office, app workshop, TLS, PROXY)" in shown
    with socket.create_connection(("127.0.0.1", _port(server, 3)), TIMEOUT) as sock:
        sock.sendall(b"ADD 1 2\n")
        with contextlib.suppress(ConnectionError):
            assert sock.recv(100) == b""
    server.wait_for(
        f" listener=127.0.0.1:{_port(server, 3)} reason=PROXY header: it does not begin"
    )


def _port(server: ServerProcess, number: int) -> int:
    return int(server.addresses[number].rpartition(":")[2])
