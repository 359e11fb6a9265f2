"""Requests that wait without a worker."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linepool import (
    App,
    Connection,
    Line,
    Memcache,
    SetupError,
    Wait,
    Waited,
    Waiters,
)
from linepool.testing import Peer
from tests.certificates import Authority
from tests.conftest import Launch
from tests.process.connections import clients, parker_of
from tests.servers import HANDLERS, TIMEOUT, ServerProcess

SHARED = ("shared", "dispatch")
ALL = (*SHARED, "accept")


def until_waiting(server: ServerProcess, count: int) -> None:
    """Wait until so many requests wait in the parker."""
    give_up_at = time.monotonic() + TIMEOUT
    while (found := server.ask("WAITING")) != str(count):
        assert time.monotonic() < give_up_at, f"{found} requests wait, not {count}"
        time.sleep(0.01)


def until_all_wait(server: ServerProcess, scheme: str, count: int) -> None:
    """Wait until so many requests wait; in ``accept`` each does so in its worker."""
    if scheme == "accept":
        server.until(lambda state: state["tally"]["busy"] == count)
    else:
        until_waiting(server, count)


Waiter = Callable[[ServerProcess, str], Peer]


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    """Give a function that returns a client whose request is the last to wait."""
    with contextlib.ExitStack() as stack:

        def wait(server: ServerProcess, command: str) -> Peer:
            before = int(server.ask("WAITING"))
            peer = stack.enter_context(server.connect())
            peer.send(command.encode() + b"\n")
            until_waiting(server, before + 1)
            return peer

        yield wait


@pytest.mark.both
@pytest.mark.scheme(*ALL)
def test_a_request_waits_for_what_another_client_brings(launch: Launch, scheme, implementation):
    server = launch("waiting.py", "--workers", "2")
    with server.connect() as peer:
        assert peer.ask("ADD 1 2") == "3"  # in the compiled core
        peer.send(b"TAKE jobs\nADD 2 3\nADD 4 5\n")  # the others wait behind it
        with server.connect() as other:
            assert other.ask("PUT jobs one") == "1"
        assert peer.line().split()[0] == "one"
        assert [peer.line(), peer.line()] == ["5", "9"]
        assert peer.ask("ADD 1 1") == "2"


@pytest.mark.scheme(*ALL)
def test_its_time_is_up_though_it_is_woken_now_and_then(launch: Launch, scheme):
    server = launch("waiting.py", "--workers", "2")
    with server.connect() as peer:
        assert peer.ask("NEVER").startswith("waited ")
        assert peer.ask("NEVER t 0").startswith("waited ")
        assert peer.ask("TAKE jobs 0.01") == "none"
        peer.send(b"NEVER t 0.4\n")
        with server.connect() as other:
            for _ in range(3):
                assert other.ask("HINT t") == "OK"
        assert peer.line().startswith("waited ")


@pytest.mark.scheme(*SHARED)
def test_requests_are_woken_in_the_order_of_their_arrival(launch: Launch, waiter: Waiter, scheme):
    server = launch("waiting.py", "--workers", "2")
    peers = [waiter(server, "TAKE jobs") for _ in range(4)]

    assert server.ask("PUT jobs one two") == "2"

    assert sorted(peer.line().split()[0] for peer in peers[:2]) == ["one", "two"]
    until_waiting(server, 2)
    assert server.ask("PUT jobs three four") == "2"
    assert sorted(peer.line().split()[0] for peer in peers[2:]) == ["four", "three"]


@pytest.mark.scheme(*ALL)
def test_all_that_wait_for_a_topic_are_woken_at_once(launch: Launch, scheme):
    server = launch("waiting.py", "--workers", "4")
    with clients(server, 3) as peers:
        for peer in peers:
            peer.send(b"TAKE jobs\n")
        until_all_wait(server, scheme, 3)
        with open(server.directory / "queues", "w") as queues:
            queues.write("jobs a\njobs b\njobs c\n")

        assert server.ask("SHOUT jobs") == "OK"

        assert sorted(peer.line().split()[0] for peer in peers) == ["a", "b", "c"]


def test_a_request_that_waits_for_several_topics_leaves_none_behind(launch: Launch, waiter: Waiter):
    server = launch("waiting.py", "--workers", "2")
    both, b = waiter(server, "TAKE_ANY a b"), waiter(server, "TAKE b")
    with server.connect() as peer:
        # What the first one is woken for by b, it finds in a: b is for the second.
        peer.send(b"PUT b two\nPUT a one\n")
        assert [peer.line(), peer.line()] == ["1", "1"]
    assert {both.line().split()[1], b.line().split()[0]} == {"one", "two"}
    until_waiting(server, 0)


def test_a_client_that_leaves_is_forgotten_at_once(launch: Launch, waiter: Waiter):
    server = launch("waiting.py", "--workers", "2")
    waiter(server, "TAKE jobs").close()
    until_waiting(server, 0)

    assert server.ask("PUT jobs one") == "1"
    assert server.ask("TAKE jobs").split()[0] == "one"


def test_a_client_that_only_ends_its_side_reads_the_answer_of_the_time_that_is_up(launch: Launch):
    server = launch("waiting.py", "--workers", "2")

    with server.connect() as peer:
        peer.send(b"TAKE jobs\nADD 1 2\n")
        until_waiting(server, 1)
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.rest() == b"none\n"


@pytest.mark.scheme(*SHARED)
def test_what_waits_survives_kill_reload_and_shrinking(launch: Launch, waiter: Waiter, scheme):
    server = launch("waiting.py", "--workers", "3")
    peers = [waiter(server, "TAKE jobs") for _ in range(4)]
    for pid in server.pids():
        os.kill(pid, signal.SIGKILL)
        server.until_gone(pid)
    server.order("SCALE 1")
    server.until(lambda state: state["tally"]["total"] == 1)
    server.send(signal.SIGHUP)
    server.until(lambda state: state["generation"] == 2 and state["tally"]["idle"] == 1)
    until_waiting(server, 4)

    assert server.ask("PUT jobs a b c d") == "4"
    assert sorted(peer.line().split()[0] for peer in peers) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("command", ["FAIL_WHEN_WOKEN jobs", "HANG_WHEN_WOKEN jobs"])
def test_what_a_request_was_woken_for_and_did_not_use_is_passed_on(
    launch: Launch, waiter: Waiter, command
):
    server = launch("waiting.py", "--workers", "2")
    first, second = waiter(server, command), waiter(server, "TAKE jobs")

    assert server.ask("PUT jobs one") == "1"
    if command.startswith("FAIL"):
        assert first.line().startswith("SERVER_ERROR internal error")
    else:
        busy = server.until(lambda state: state["tally"]["busy"] == 1)
        (pid,) = [one["pid"] for one in busy["workers"] if one["state"] == "busy"]
        os.kill(pid, signal.SIGKILL)

    assert second.line().split()[0] == "one"


@pytest.mark.scheme(*ALL)
def test_a_server_that_stops_answers_what_waits(launch: Launch, scheme):
    server = launch("waiting.py", "--workers", "3")
    with clients(server, 2) as peers:
        peers[0].send(b"RUNS news\n")
        peers[1].send(b"TAKE jobs\n")
        until_all_wait(server, scheme, 2)
        server.send(signal.SIGTERM)

        assert peers[0].line().startswith("stopping ")
        assert peers[1].line() == "none"
    assert server.ended() == 0


def test_if_the_parker_dies_its_clients_read_the_end(launch: Launch, waiter: Waiter):
    server = launch("waiting.py", "--workers", "2")
    peer = waiter(server, "TAKE jobs")
    os.kill(parker_of(server), signal.SIGKILL)
    assert peer.rest() == b""
    server.wait_for("parker")

    with server.connect() as peer:
        peer.send(b"TAKE jobs\n")
        assert server.ask("PUT jobs one") == "1"
        assert peer.line().split()[0] == "one"


@pytest.mark.both
@pytest.mark.parametrize("app", ["line", "resp", "rpc", "mail"])
def test_requests_of_each_protocol_wait(launch: Launch, app, implementation):
    server = launch(f"{HANDLERS}/waiting_protocols.py:{app}", "--workers", "2")

    def request(method: str, *words: str) -> bytes:
        if app == "rpc":
            call = {"jsonrpc": "2.0", "method": method, "params": words, "id": 1}
            return json.dumps(call).encode() + b"\n"
        return " ".join([method, *words]).encode() + b"\r\n"

    with server.connect() as peer, server.connect() as other:
        if app == "mail":
            assert peer.line() == other.line() == "220 ready"
        peer.send(request("wait", "news") + request("ping"))
        while not select.select([peer.socket], [], [], 0.02)[0]:
            other.send(request("wake", "news"))
            while "done" not in other.line():
                pass
        said = [peer.line()]
        while "pong" not in said[-1]:
            said.append(peer.line())
    assert "woken news" in " ".join(said)


@pytest.mark.both
@pytest.mark.scheme(*ALL)
def test_a_request_waits_behind_tls_and_its_worker_serves_others(
    launch: Launch, tmp_path: Path, scheme, implementation
):
    authority = Authority(tmp_path, "authority")
    certificate = authority.certificate("server", "DNS:localhost")
    workers = "3" if scheme == "accept" else "1"
    server = launch("waiting.py", "--workers", workers, "--tls-cert", str(certificate))
    context = ssl.create_default_context(cafile=str(authority.path))

    def connect() -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
        return context.wrap_socket(sock, server_hostname="localhost")

    def ask(client: ssl.SSLSocket, data: bytes) -> bytes:
        client.sendall(data)
        return line(client)

    with connect() as client, connect() as leaving, connect() as other:
        leaving.sendall(b"TAKE jobs\n")
        client.sendall(b"TAKE jobs\nADD 2 3\n")
        if scheme == "accept":
            server.until(lambda state: state["tally"]["busy"] == 3)
        else:
            while ask(other, b"WAITING\n") != b"2\n":
                pass
        leaving.shutdown(socket.SHUT_RDWR)
        if scheme == "accept":
            server.until(lambda state: state["tally"]["busy"] == 2)
        else:
            while ask(other, b"WAITING\n") != b"1\n":
                pass
        assert ask(other, b"PUT jobs one\n") == b"1\n"
        assert line(client).split()[0] == b"one"
        assert line(client) == b"5\n"
        assert ask(client, b"TAKE jobs 0.01\n") == b"none\n"
        client.sendall(b"TAKE jobs\n")
        if scheme != "accept":
            while ask(other, b"WAITING\n") != b"1\n":
                pass
            server.send(signal.SIGTERM)
            assert line(client) == b"none\n"


@pytest.mark.both
@pytest.mark.scheme(*SHARED)
def test_behind_a_reply_that_is_read_late_a_request_waits_though_more_is_sent(
    launch: Launch, tmp_path: Path, scheme, implementation
):
    authority = Authority(tmp_path, "authority")
    certificate = authority.certificate("server", "DNS:localhost")
    server = launch("waiting.py", "--workers", "1", "--tls-cert", str(certificate))
    context = ssl.create_default_context(cafile=str(authority.path))

    def connect() -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
        return context.wrap_socket(sock, server_hostname="localhost")

    def ask(data: bytes) -> bytes:
        other.sendall(data)
        return line(other)

    with connect() as client, connect() as other:
        client.sendall(b"BIG 20000000\nTAKE jobs\n")
        left = 20_000_001 - len(client.recv(1))
        assert ask(b"WAITING\n") == b"0\n"  # by now the worker waits until the client reads more
        while left:
            left -= len(client.recv(min(left, 1 << 16)))
        while ask(b"WAITING\n") != b"1\n":
            pass
        client.sendall(b"ADD 2 3\n")

        assert ask(b"PUT jobs one\n") == b"1\n"
        assert line(client) == b"one 1\n"
        assert line(client) == b"5\n"


def line(client: ssl.SSLSocket) -> bytes:
    """Return the next line."""
    data = b""
    while not data.endswith(b"\n"):
        data += client.recv(1) or b"(the end)\n"
    return data


def test_a_part_of_a_transaction_or_a_batch_does_not_wait(launch: Launch):
    server = launch(f"{HANDLERS}/waiting_protocols.py:resp", "--workers", "1")
    script = b"MULTI\r\nWAIT news\r\nPING\r\nEXEC\r\n"
    with server.connect() as peer:
        peer.send(script)
        lines = [peer.line() for _ in range(8)]
    assert lines[3:] == ["*2", "$10", "time is up", "$4", "pong"]

    server = launch(f"{HANDLERS}/waiting_protocols.py:rpc", "--workers", "1")
    calls = [{"jsonrpc": "2.0", "method": "wait", "params": ["a"], "id": n} for n in (1, 2)]
    with server.connect() as peer:
        peer.send(json.dumps(calls).encode() + b"\n")
        assert [one["result"] for one in json.loads(peer.line())] == ["time is up"] * 2


def test_without_a_server_the_time_is_up_at_once():
    app = App("asked")

    @app.handler
    def take(waited: Waited, waiters: Waiters, topic: str = "t") -> str | Wait:
        waiters.notify(topic)
        return Wait(topic, then=f"none after {waited.times}")

    assert app.ask("TAKE") == "none after 0"


@pytest.mark.parametrize(
    ("protocol", "handler", "says"),
    [
        (Memcache(), lambda key: Wait(key, timeout=1), "requests cannot wait with Memcache"),
        (None, lambda key, live: Wait(key), r"the live connection \(parameter live\)"),
    ],
)
def test_a_handler_that_cannot_wait_is_refused_at_the_start(protocol, handler, says):
    app = App("refused", protocol=protocol or Line())
    handler.__name__ = "take"
    handler.__annotations__ = {"key": str, "live": Connection, "return": str | Wait}
    app.handler("take")(handler)

    with pytest.raises(SetupError, match=says):
        app.ask("TAKE a")


def test_a_handler_that_waits_without_saying_so_is_an_error():
    app = App("silent")
    app.handler("take")(lambda: Wait("a"))

    with pytest.raises(TypeError, match="must say so: -> "):
        app.ask("TAKE", raise_errors=True)


@pytest.mark.both
@pytest.mark.scheme(*SHARED)
def test_calls_overtake_those_that_wait_if_the_app_says_so(launch: Launch, scheme, implementation):
    server = launch(f"{HANDLERS}/waiting_protocols.py:overtaking", "--workers", "2")
    with server.connect() as peer:

        def call(number: int, method: str, *words: object) -> None:
            one = {"jsonrpc": "2.0", "method": method, "params": words, "id": number}
            peer.send(json.dumps(one).encode() + b"\n")

        def replies(count: int) -> dict[int, str]:
            found = [json.loads(peer.line()) for _ in range(count)]
            return {one["id"]: one["result"] for one in found}

        for number in range(5):
            call(number, "wait", f"topic {number}")
        call(10, "ping")
        assert replies(1) == {10: "pong"}
        server.until(
            lambda state: (state["waiters"]["requests"], state["connections"]["hot"]) == (5, 0)
        )
        for pid in server.pids():
            os.kill(pid, signal.SIGKILL)
            server.until_gone(pid)
        call(11, "wake", "topic 3")
        assert replies(2) == {11: "done", 3: "woken topic 3"}
        call(12, "wait", "topic 5", 0.01)
        assert replies(1) == {12: "time is up"}
        call(13, "wake", "topic 0")
        call(14, "ping")
        assert replies(3) == {13: "done", 14: "pong", 0: "woken topic 0"}
        peer.send(b'{"jsonrpc": "2.0", "method": "pi')
        with server.connect() as other:
            other.send(b'{"jsonrpc": "2.0", "method": "wake", "params": ["topic 1"], "id": 1}\n')
            assert json.loads(other.line())["result"] == "done"
        assert replies(1) == {1: "woken topic 1"}
        peer.send(b'ng", "id": 15}\n')
        assert replies(1) == {15: "pong"}
        for number in range(110):
            call(100 + number, "wait", "never", 2)
        call(16, "ping")
        found = replies(1)
        while 16 not in found:
            found |= replies(1)
        assert set(found.values()) == {"time is up", "pong"}  # no room is left for more of them
        server.send(signal.SIGTERM)
        found |= replies(113 - len(found))
        assert {found[2], found[4], found[100]} == {"time is up"}


@pytest.mark.scheme(*SHARED)
def test_a_client_that_left_just_before_the_wake_up_is_given_nothing(launch: Launch, scheme):
    server = launch("waiting.py", "--workers", "2")
    with server.connect() as other:
        for _ in range(20):
            with server.connect() as peer:
                peer.send(b"TAKE jobs\n")
                until_waiting(server, 1)
            assert other.ask("PUT jobs one") == "1"
            assert other.ask("TAKE jobs 0").split()[0] == "one"
