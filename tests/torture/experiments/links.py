"""Clients whose link is gone: the kernel is asked, and the connections end; nobody says goodbye."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.servers import ServerProcess
from tests.torture.experiments.generator import Plan
from tests.torture.experiments.ground import APP, Ground

_BETWEEN = 20  # requests
_CLONE_NEWNET = 0x40000000  # setns(2)
_SERVER, _CLIENT = "198.18.0.1", "198.18.0.2"  # for tests of networks (RFC 2544)
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2))
_STATES = (b"", b"WORK", b"AWAIT 1 nothing 600\n")  # idle, half of a request, one that waits


def half_open_links(ground: Ground) -> None:
    """T17: the link to many clients goes down; they are idle, within a request, or wait for something."""
    count = ground.size.pick(9, 150)
    load = ground.load()
    with _network(ground) as network, network.listener() as listener:
        server = ground.serve(
            target=APP.with_name("patient_app.py"),
            bind=("127.0.0.1:0", f"fd://{listener.fileno()}"),
            pass_fds=(listener.fileno(),),
            warm=False,
        )
        ground.look(server)
        load.start(Plan(address=server.address, clients=4, seed=ground.report.seed))
        # Accepted connections inherit what is set on their listener (tcp(7)); two minutes are too long here.
        for option, value in _KEEPALIVE:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
        with contextlib.ExitStack() as stack, ground.parked(server, 10):
            _come(server, network, stack, count)
            network.cut()
            ground.await_requests(_BETWEEN)
            server.until(lambda state: _held(state) <= 10 + 4)
            server.until(lambda state: state["waiters"]["requests"] == 0)
            ground.await_requests(_BETWEEN)
        requests = load.finish()
        ground.account(requests)
        ground.innocent(server)
        ground.look_again(server)
    ground.report.check("requests of others lost", sum(ground.report.lost.values()))
    ground.report.kills = count


def _come(server: ServerProcess, network: Network, stack: contextlib.ExitStack, count: int) -> None:
    """Have clients connect from the other end of the link; a third each is idle, halfway, or waits."""
    port = int(server.addresses[1].rpartition(":")[2])
    for index in range(count):
        client = stack.enter_context(network.connect(port))
        client.sendall(b"WORK %d\n" % (2 * 10**9 + index))
        assert client.recv(4096)
        client.sendall(_STATES[index % len(_STATES)])
    waiting = count // len(_STATES)
    server.until(lambda state: state["waiters"]["requests"] == waiting)
    server.until(lambda state: _held(state) >= count + 10)


def _held(state: dict[str, dict[str, int]]) -> int:
    return state["connections"]["hot"] + state["connections"]["parked"]


@frozen
class Network:
    """Two network namespaces with a link between them; this process's own network stays as it is."""

    server: str
    client: str

    def listener(self) -> socket.socket:
        """Return a socket that listens at the server's end."""
        with _inside(self.server):
            return socket.create_server((_SERVER, 0), backlog=512)

    def connect(self, port: int) -> socket.socket:
        """Return a connection from the client's end."""
        with _inside(self.client):
            return socket.create_connection((_SERVER, port), 30)

    def cut(self) -> None:
        """Take the link down at the client's end."""
        _ip("-n", self.client, "link", "set", "veth", "down")


@contextlib.contextmanager
def _network(ground: Ground) -> Iterator[Network]:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("only root makes network namespaces, with ip(8)")
    name = f"linepool-{os.getpid()}-{ground.report.seed}"
    ends = (f"{name}-s", _SERVER), (f"{name}-c", _CLIENT)
    with contextlib.ExitStack() as stack:
        for space, _ in ends:
            _ip("netns", "add", space)
            stack.callback(_ip, "netns", "del", space)
        (server, _), (client, _) = ends
        _ip("-n", server, "link", "add", "veth", "type", "veth", "peer", "veth", "netns", client)
        for space, address in ends:
            _ip("-n", space, "address", "add", f"{address}/24", "dev", "veth")
            _ip("-n", space, "link", "set", "veth", "up")
        yield Network(server, client)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode and "add" in words:
        pytest.skip(f"no network namespaces: {done.stderr.strip()}")


@contextlib.contextmanager
def _inside(space: str) -> Iterator[None]:
    """Have this thread make its sockets in a network namespace (setns(2)); they stay there."""
    with open("/proc/thread-self/ns/net") as own, Path(f"/run/netns/{space}").open() as other:
        _enter(other.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
