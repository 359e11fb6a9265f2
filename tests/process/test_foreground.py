"""``workers = 0``: an app is served by the process that is started, without others and without limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import linepool
from linepool import App, Connection, Session, SetupError
from linepool.protocols.resp import Resp
from linepool.testing import Server, serve
from tests.conftest import Launch
from tests.servers import ROOT, ServerProcess


def make_app() -> App:
    """Return an app with a handler of each kind."""
    app = App("foreground", request_timeout=0.01, idle_timeout=0.01, scheme="dispatch")

    @app.handler
    def pid() -> int:
        return os.getpid()

    @app.handler
    def count(session: Session) -> int:
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])

    @app.handler
    def numbers(most: int) -> Iterator[int]:
        yield from range(most)

    @app.handler
    def tell(word: str, connection: Connection) -> str:
        connection.push(f"pushed {word}")
        return word

    @app.handler
    def spin(turns: int) -> int:
        return sum(range(turns))

    @app.handler
    def fail() -> None:
        raise ValueError("boom")

    return app


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(make_app(), workers=0) as server:
        yield server


def test_the_process_that_was_started_serves(server: Server):
    assert server.ask("PID") == str(server.pid)


def test_several_connections_are_served_at_once(server: Server):
    with server.connect() as silent, server.connect() as one, server.connect() as other:
        silent.send(b"COU")  # the rest of it comes later
        assert [one.ask("COUNT"), one.ask("COUNT"), other.ask("COUNT")] == ["1", "2", "1"]
        silent.send(b"NT\n")
        assert silent.line() == "1"


def test_streams_and_pushes_are_sent(server: Server):
    with server.connect() as peer:
        assert peer.ask_lines("NUMBERS 3") == ["0", "1", "2"]
        assert peer.ask("TELL hello") == "pushed hello"
        assert peer.line() == "hello"


def test_no_time_is_limited(server: Server):
    with server.connect() as peer:
        assert peer.ask("SPIN 2000000") == str(sum(range(2_000_000)))  # longer than request_timeout
        assert peer.ask("COUNT") == "1"


def test_an_exception_is_a_reply(server: Server):
    with server.connect() as peer:
        assert peer.ask("FAIL").startswith("SERVER_ERROR internal error, id ")
        assert peer.ask("COUNT") == "1"


def test_messages_reach_subscribers():
    with serve(App(protocol=Resp()), workers=0) as server, server.connect() as subscriber:
        subscriber.send(b"SUBSCRIBE news\r\n")
        assert [subscriber.line() for _ in range(6)][-1] == ":1"
        with server.connect() as publisher:
            assert publisher.ask("PUBLISH news hello") == ":1"
        assert [subscriber.line() for _ in range(7)][-1] == "hello"
        assert server.stop() == 0


def test_what_has_no_effect_is_named(launch: Launch):
    options = ("--workers", "0", "--scheme", "accept", "--min-spare", "1", "--idle-timeout", "5")
    server = launch("workshop.py", *options)
    said = server.text
    assert "no effect with workers = 0, in the foreground: " in said
    assert "scheme, min_spare, idle_timeout" in said.replace("control, ", "")
    assert f"ready: in the foreground pid={server.process.pid}" in said
    assert server.ask("PID") == str(server.process.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_resources_are_closed(launch: Launch, tmp_path, number):
    app = tmp_path / "app.py"
    app.write_text(
        "import linepool\n"
        "from collections.abc import Iterator\n"
        "class Journal(list): ...\n"
        "@linepool.resource\n"
        "def journal() -> Iterator[Journal]:\n"
        "    yield Journal()\n"
        "    open('closed', 'w').close()\n"
        "@linepool.handler\n"
        "def add(a: int, b: int) -> int: return a + b\n"
    )
    server: ServerProcess = launch(app, "--workers", "0", bind=("unix:socket",))
    with server.connect() as idle:
        assert idle.ask("ADD 2 3") == "5"
        server.send(number)
        assert server.ended() == 0, server.text
    assert (server.directory / "closed").exists()
    assert not (server.directory / "socket").exists()


def test_an_app_cannot_choose_it_for_the_command_that_starts_it(tmp_path):
    (tmp_path / "app.py").write_text("import linepool\napp = linepool.App(workers=0)\n")
    command = [sys.executable, "-m", "linepool", "run", "app.py", "--control", "off"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "give --workers 0, not in App(...)" in done.stderr


def test_serve_says_that_the_app_does_not_load():
    app = linepool.App()

    @app.on_start
    def fail() -> None:
        raise RuntimeError("no licence")

    with pytest.raises(SetupError, match="no licence"), serve(app, workers=0):
        pass
