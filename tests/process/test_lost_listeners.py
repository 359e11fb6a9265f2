"""Handlers that close the descriptors of listeners, or shut them: clients are served again, nothing spins."""

from __future__ import annotations

import re
import socket

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.connections import clients
from tests.servers import ServerProcess
from tests.torture import proc

pytestmark = pytest.mark.linux("the app finds its listeners in /proc")

_LOOKS = 20  # in a row; a process that spins is never asleep


def serve(launch: Launch, *options: str, scheme: str) -> ServerProcess:
    return launch("careless_with_listeners.py", "--workers", "2", *options, scheme=scheme)


def until_asleep(server: ServerProcess, pids: list[int]) -> None:
    """Wait until processes sleep, and go on to."""
    for pid in pids:
        asleep = 0
        while asleep < _LOOKS:
            server.status()  # time passes
            asleep = asleep + 1 if proc.is_asleep(pid) else 0


@pytest.mark.parametrize("scheme", ["shared", "accept"])
@pytest.mark.parametrize("harm", ["close", "replace", "connect"])
def test_a_worker_that_has_lost_its_listener_is_replaced(launch: Launch, harm, scheme):
    server = serve(launch, scheme=scheme)
    with server.connect() as peer:
        harmed = int(peer.ask("PID"))
        assert peer.ask(f"HARM {harm}") == "1"
    while harmed in server.pids():  # it notices as soon as a client comes to it
        assert server.ask("PID")
    server.until(lambda state: state["tally"]["total"] == state["tally"]["idle"] == 2)

    with clients(server, 2) as both:
        assert str(harmed) not in {one.ask("PID") for one in both}
    server.wait_for(f"a handler has closed the descriptor of a listener address={server.address}")
    assert server.stop() == 0
    assert "Traceback" not in server.text


@pytest.mark.parametrize("scheme", ["shared", "accept"])
def test_a_listener_that_a_handler_has_shut_is_opened_again(launch: Launch, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        fixed = f"127.0.0.1:{free.getsockname()[1]}"
    server = serve(launch, "--bind", fixed, scheme=scheme)
    workers = server.pids()
    addresses = {server.address, fixed}  # the kernel chose the port of the other one
    assert server.ask("HARM shut") == str(len(addresses))
    for address in addresses:
        line = f"a handler has shut a listener; it is open again address={address}"
        if line not in server.text:  # they come in any order
            server.wait_for(line)
        with Peer(address) as peer:
            assert int(peer.ask("PID")) in workers
    until_asleep(server, workers)
    assert server.pids() == workers
    assert server.stop() == 0
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            Peer(address)


@pytest.mark.parametrize("scheme", ["shared", "accept"])
def test_the_server_says_that_a_unix_socket_was_shut_for_good(launch: Launch, tmp_path, scheme):
    path = f"unix:{tmp_path}/s"
    server = serve(launch, "--bind", path, scheme=scheme)
    with Peer(path) as peer:
        assert int(peer.ask("HARM shut"))
    server.wait_for(f"a handler has shut a listener; start the server again address={path}")

    until_asleep(server, server.pids())
    assert server.stop() == 0


def test_a_listener_that_no_longer_waits_does_again(launch: Launch):
    server = serve(launch, scheme="accept")
    assert server.ask("HARM wake") == "1"

    until_asleep(server, server.pids())
    assert re.fullmatch(r"\d+", server.ask("PID"))
