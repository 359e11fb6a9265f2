"""Resources in workers: of connections and requests, and of a worker whose database comes and goes."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool import App, Connection
from linepool.testing import Peer, serve
from tests.conftest import Launch
from tests.process.connections import until_parked
from tests.servers import TIMEOUT, Gate, ServerProcess

pytestmark = pytest.mark.both

INTERNAL = "SERVER_ERROR internal error, id "


class Echo:
    """A TCP server that returns each line, and can be stopped and started again on its port."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        """Accept connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        self._stop, stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, args=[self._listener, stopped])
        self._thread.start()

    def stop(self) -> None:
        """End all connections, and refuse new ones."""
        self._stop.close()
        self._thread.join(TIMEOUT)

    @staticmethod
    def _serve(listener: socket.socket, stopped: socket.socket) -> None:
        sockets = [listener, stopped]
        while stopped not in (ready := select.select(sockets, [], [])[0]):
            for one in ready:
                if one is listener:
                    sockets.append(listener.accept()[0])
                elif data := one.recv(1000):
                    one.sendall(data)
                else:
                    sockets.remove(one)
                    one.close()
        for one in sockets:
            one.close()


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    """Give the database."""
    echo = Echo()
    yield echo
    echo.stop()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """Give the gate of the handlers."""
    with Gate(tmp_path_factory.mktemp("gate") / "gate") as gate:
        yield gate


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file in which resources note their lives."""
    return tmp_path_factory.mktemp("resources") / "journal"


@pytest.fixture(scope="module")
def running(implementation: None, journal: Path, echo: Echo, gate: Gate) -> Iterator[ServerProcess]:
    """Serve the resources by one worker, which parks at once."""
    with ServerProcess(
        journal.parent,
        "resourceful.py",
        *("--workers", "1", "--park-after", "0.01", "--write-timeout", "20"),
        environment={"JOURNAL": str(journal), "DATABASE": str(echo.port)},
        gate=gate,
    ) as server:
        yield server


@pytest.fixture
def server(running: ServerProcess, journal: Path) -> ServerProcess:
    """Give the server that tests share, with an empty journal."""
    journal.write_text("")
    return running


def noted(journal: Path) -> list[str]:
    """Return the lines of the journal."""
    return journal.read_text().splitlines()


def until_noted(server: ServerProcess, journal: Path, line: str) -> None:
    """Wait for a line of the journal."""
    server.until(lambda _: line in noted(journal))


def test_a_connection_keeps_its_own_and_is_not_parked(server: ServerProcess, journal):
    with server.connect() as keeper, server.connect() as other:
        assert other.ask("pid") == keeper.ask("pid")
        assert keeper.ask("count") == "1"
        until_parked(server, 1, hot=1)
        keeper.send(b"count\nboth\n")
        assert (keeper.line(), keeper.line()) == ("2", "3")
        assert other.ask("count") == "1"
        assert noted(journal) == ["client opened", "change done", "client opened"]
        keeper.close()
        until_noted(server, journal, "client closed")
        assert other.ask("count") == "2"
    server.until(lambda _: noted(journal).count("client closed") == 2)


def test_a_request_has_its_own_to_the_end_of_its_reply(server: ServerProcess, journal, gate):
    assert server.converse(b"apply\napply\nflow 2 1\napply 1\n").splitlines()[:2] == [b"OK"] * 2
    assert noted(journal) == ["change done"] * 3
    with server.connect() as peer:
        peer.send(b"late\n")
        gate.wait()
        assert peer.line().startswith("SERVER_ERROR the request took longer")
    assert noted(journal)[3:] == ["change RequestTimeout"]


def test_a_stream_whose_client_leaves_ends_it_with_generator_exit(server: ServerProcess, journal):
    with server.connect() as peer, server.connect() as other:
        peer.send(b"flow 1000 100000\n")
        assert peer.line()[:1] == "x"
        assert other.ask("apply") == "OK"  # meanwhile, and with one of its own
    until_noted(server, journal, "change GeneratorExit")
    assert noted(journal) == ["change done", "change GeneratorExit"]


def test_a_database_that_comes_back_is_used_again(server: ServerProcess, echo: Echo):
    with server.connect() as peer:
        assert peer.ask("query one") == "one"
        echo.stop()
        assert peer.ask("query two").startswith(INTERNAL)
        server.wait_for("handler failed")
        assert peer.ask("query three").startswith(INTERNAL)
        server.wait_for("resource is broken: closed resource=database why=")
        echo.start()
        server.until(lambda _: peer.ask("query four") == "four")
        server.wait_for("resource opened again resource=database")
        echo.stop()
        echo.start()
        assert peer.ask("query five").startswith(INTERNAL)
        assert peer.ask("query six") == "six"


def test_a_worker_that_is_replaced_closes_the_resources_of_its_connections(
    launch: Launch, tmp_path, echo: Echo
):
    journal = tmp_path / "journal"
    environment = {"JOURNAL": str(journal), "DATABASE": str(echo.port)}
    server = launch("resourceful.py", "--workers", "1", environment=environment)

    with server.connect() as leaving:
        assert leaving.ask("count") == "1"
        server.order("RELOAD")
        assert at_end(leaving)
    until_noted(server, journal, "client closed")

    with server.connect() as killed:
        assert killed.ask("count") == "1"
        os.kill(int(killed.ask("pid")), signal.SIGKILL)
        assert at_end(killed)
    assert noted(journal)[2:] == ["client opened"]  # a killed worker closes nothing

    with server.connect() as stopped:
        assert stopped.ask("count") == "1"
        assert server.stop() == 0
    assert noted(journal)[3:] == ["client opened", "client closed"]


def at_end(peer: Peer) -> bool:
    """Return whether a connection has ended, in whatever way."""
    try:
        return peer.line() == ""
    except ConnectionError:
        return True


def test_a_worker_whose_resource_cannot_be_opened_says_which(launch: Launch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    environment = {"JOURNAL": str(tmp_path / "journal"), "DATABASE": str(port)}
    server = launch("resourceful.py", "--workers", "1", ready=False, environment=environment)

    line = server.wait_for("resource failed to open")
    assert "resource=database at " in line
    assert "why='ConnectionRefusedError: " in line
    server.wait_for("worker failed")
    server.send(signal.SIGTERM)


class Journal(list[str]):
    """What middleware is given."""


@pytest.mark.usefixtures("implementation")
def test_middleware_of_workers_is_given_resources():
    app = App()

    @app.resource
    def journal() -> Iterator[Journal]:
        yield Journal()

    @app.resource(scope="request")
    def entry(journal: Journal) -> Iterator[dict[str, str]]:
        journal.append("begin")
        yield {}
        journal.append("end")

    @app.middleware
    def plain(request, session, call_next, journal: Journal):
        journal.append(request.verb.decode())
        return call_next(request)

    @app.handler
    def seen(journal: Journal) -> str:
        return ",".join(journal)

    @app.handler
    def own(entry: dict[str, str]) -> int:
        return len(entry)

    with serve(app, workers=1) as server, server.connect() as peer:
        peer.send(b"seen\nown\nseen\n")
        assert [peer.line() for _ in range(3)] == ["seen", "0", "seen,own,begin,end,seen"]

    @app.middleware
    def around(request, session, entry: dict[str, str], connection: Connection):
        yield

    with serve(app, workers=1) as server, server.connect() as peer:
        peer.send(b"seen\nown\nseen\n")
        shown = [peer.line() for _ in range(3)]
        assert shown[:2] == ["seen,begin", "0"]
        assert shown[2] == "seen,begin,end,own,begin,end,seen,begin"
