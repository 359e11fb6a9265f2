"""What the requests of a batch share, in workers: committed before its replies are sent, or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any
from unittest import mock

import pytest

from linepool import App, Connection, PubSub, Resp, Session
from linepool.errors import RequestTimeout
from linepool.testing import Server, serve
from tests.servers import Gate

pytestmark = pytest.mark.both

every_scheme = pytest.mark.parametrize("running", ["shared", "dispatch", "accept"], indirect=True)


class Page:
    """What the requests of one batch write."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.is_spoiled = False
        self.gate: str | None = None
        self.pubsub: PubSub | None = None

    def finish(self) -> None:
        """Fail, or hang, if a request wanted it."""
        if self.is_spoiled:
            raise OSError("the disk is full")
        while self.gate is not None:
            pass_gate(self.gate)


def pass_gate(path: str) -> None:
    """Wait for the test, whatever is raised but for what ends the worker."""
    with open(f"{path}.bell", "w", encoding="ascii") as bell:
        bell.write(f"{os.getpid()}\n")
    with open(path, "rb", buffering=0) as gate:
        gate.read(1)


def notebook(path: Path, app: App | None = None) -> App:  # noqa: C901 - many small ones
    """Return an app whose batches write a line each to a file."""
    app = app or App()

    @app.resource
    def file() -> Iterator[IO[str]]:
        with path.open("a") as file:
            yield file

    @app.resource(scope="batch")
    def page(file: IO[str]) -> Iterator[Page]:
        page = Page()
        yield page
        page.finish()
        file.write("+".join(page.words) + "\n")
        file.flush()

    @app.handler
    def note(word: str, page: Page) -> int:
        page.words.append(word)
        return len(page.words)

    @app.handler
    def spoil(page: Page) -> None:
        page.is_spoiled = True

    @app.handler(timeout=0.3)
    def hang(gate: str, page: Page) -> None:
        page.gate = gate

    @app.handler
    def wait(gate: str, page: Page) -> str:
        page.words.append("waits")
        pass_gate(gate)
        return "opened"

    @app.handler
    def push(word: str, page: Page, connection: Connection) -> str:
        page.words.append(word)
        connection.push("pushed")
        return pages()

    @app.handler(timeout=0.3)
    def late(page: Page) -> None:
        page.words.append("late")
        try:
            time.sleep(60)
        except RequestTimeout:
            page.words.append("overdue")
            raise

    @app.handler(timeout=0.3)
    def stuck(page: Page) -> None:
        page.words.append("stuck")
        while True:
            try:
                time.sleep(60)
            except BaseException:  # noqa: BLE001 - only a kill ends it
                continue

    @app.handler
    def big(size: int, page: Page) -> bytes:
        page.words.append("big")
        return b"x" * size

    @app.handler
    def stream(lines: int) -> Iterator[str]:
        for _ in range(lines):
            yield pages()

    @app.handler
    def pages() -> str:
        return ",".join(path.read_text().split())

    return app


@contextlib.contextmanager
def serve_patiently(app: App, **settings: Any) -> Iterator[Server]:
    """Serve an app by workers whose batches do not end because the machine is busy."""
    with contextlib.ExitStack() as stack:
        for where in ("linepool.core.rules", "linepool.worker.connection"):
            stack.enter_context(mock.patch(f"{where}.BATCH_NS", 2**62))
        yield stack.enter_context(serve(app, **settings))


def serve_notebook(path: Path, scheme: str) -> AbstractContextManager[Server]:
    """Serve the notebook by one worker."""
    app = notebook(path)
    return serve_patiently(app, scheme=scheme, workers=1, kill_grace=0.3, poison_deaths=0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of the notebook."""
    return tmp_path_factory.mktemp("notebook") / "pages"


@pytest.fixture(scope="module", params=["shared", "accept"])
def running(implementation, request, path) -> Iterator[Server]:
    """Serve the notebook in a scheme."""
    with serve_notebook(path, request.param) as server:
        yield server


@pytest.fixture
def server(running: Server, path: Path) -> Server:
    """Give the server that tests share, with an empty notebook."""
    path.write_text("")  # the worker appends
    return running


def committed(server: Server) -> str:
    """Return what has been committed."""
    return server.ask("PAGES")


@every_scheme
def test_a_batch_is_committed_as_a_whole_before_its_first_reply_can_be_read(server, path):
    with server.connect() as peer:
        peer.send(b"NOTE a\nNOTE b\nPAGES\nNOTE c\n")
        assert peer.line() == "1"
        assert path.read_text() == "a+b+c\n"
        assert [peer.line() for _ in range(3)] == ["2", "", "3"]
        assert peer.ask("NOTE d") == "1"
    assert committed(server) == "a+b+c,d"


@every_scheme
def test_the_client_of_a_batch_that_cannot_be_committed_reads_an_error_and_no_reply(server):
    with server.connect() as peer:
        assert peer.ask("NOTE a") == "1"
        peer.send(b"NOTE b\nSPOIL\nNOTE c\nPAGES\n")
        assert peer.line().startswith("SERVER_ERROR internal error, id ")
        assert peer.line() == ""
    assert committed(server) == "a"


def test_a_request_that_is_overdue_costs_the_others_nothing(server):
    with server.connect() as peer:
        peer.send(b"NOTE a\nLATE\nNOTE b\n")
        assert peer.line() == "1"
        assert peer.line() == "SERVER_ERROR the request took longer than 0.3 s"
        assert peer.line() == "4"
    assert committed(server) == "a+late+overdue+b"


@pytest.mark.parametrize(
    ("before", "error"), [("", "SERVER_ERROR the request was ended: it took"), ("NOTE b\n", "")]
)
@pytest.mark.linux("the client of a killed worker reads no error line")
def test_of_a_batch_whose_worker_is_killed_nothing_is_committed_and_no_reply_is_sent(
    server, before, error
):
    with server.connect() as peer:
        assert peer.ask("NOTE a") == "1"
        peer.send(f"{before}STUCK\nNOTE c\n".encode())
        said = peer.rest().decode()
        assert said.startswith(error)
        assert bool(said) == bool(error)
    assert committed(server) == "a"


@pytest.mark.linux("the client of a killed worker reads no error line")
def test_a_commit_that_hangs_is_killed_like_a_handler(server, tmp_path):
    with Gate(tmp_path / "gate") as gate, server.connect() as peer:
        peer.send(f"HANG {gate.path}\n".encode())
        gate.wait()
        assert peer.line().startswith("SERVER_ERROR the request was ended: it took")
        assert peer.line() == ""
    assert committed(server) == ""


@pytest.mark.scheme("shared", "accept")
def test_a_worker_that_stops_at_once_commits_nothing_of_its_batch(implementation, scheme, tmp_path):
    path = tmp_path / "pages"
    with Gate(tmp_path / "gate") as gate, serve_notebook(path, scheme) as server:
        with server.connect() as peer:
            peer.send(f"NOTE a\nWAIT {gate.path}\n".encode())
            gate.wait()
            os.kill(server.pid, signal.SIGINT)
            replies = peer.rest()
        server.stop()
    # On a busy machine the first request may have had a batch, and a turn, of its own.
    assert (replies, path.read_text()) in [(b"", ""), (b"1\n", "a\n")]


def test_what_was_done_before_a_stream_is_committed_when_its_first_part_is_read(server, path):
    with server.connect() as peer:
        peer.send(b"NOTE a\nNOTE b\nSTREAM 2\nNOTE c\nPAGES\n")
        assert [peer.line() for _ in range(5)] == ["1", "2", "a+b", "a+b", "END"]
        assert peer.line() == "1"
    assert committed(server) == "a+b,c"


def test_a_stream_that_its_client_does_not_read_holds_no_batch(server, path):
    with server.connect() as peer:
        peer.send(b"NOTE a\nSTREAM 3000000\nNOTE b\n")
        assert peer.line() == "1"
        assert path.read_text() == "a\n"


def test_what_was_done_before_a_push_is_committed_when_it_is_read(server, path):
    with server.connect() as peer:
        peer.send(b"NOTE a\nPUSH b\nNOTE c\n")
        assert [peer.line() for _ in range(4)] == ["1", "pushed", "a+b", "1"]
    assert committed(server) == "a+b,c"


def test_nothing_is_pushed_for_a_batch_that_cannot_be_committed(server):
    with server.connect() as peer:
        peer.send(b"NOTE a\nSPOIL\nPUSH b\nNOTE c\n")
        assert peer.line().startswith("SERVER_ERROR internal error, id ")
        assert peer.line() == "SERVER_ERROR an earlier request has failed"
        assert peer.line() == ""
    assert committed(server) == ""


def test_requests_that_are_answered_in_several_turns_make_several_batches(server, path):
    with server.connect() as peer:
        peer.send(b"BIG 40000\n" * 6)
        assert [len(peer.line()) for _ in range(6)] == [40000] * 6
    batches = path.read_text().split()
    assert len(batches) >= 3
    assert sum(batch.count("big") for batch in batches) == 6


def test_a_subscriber_reads_a_message_after_what_was_done_before_it_is_committed(tmp_path):
    app = notebook(tmp_path / "pages", App(protocol=Resp()))

    @app.handler
    def tell(word: str, page: Page, pubsub: PubSub) -> int:
        page.words.append(word)
        return pubsub.publish(b"news", b"now")

    with serve_patiently(app) as server, server.connect() as reader, server.connect() as writer:
        reader.send(b"SUBSCRIBE news\r\n")
        assert [reader.line() for _ in range(6)][-1] == ":1"
        writer.send(b"NOTE a\r\nTELL b\r\nNOTE c\r\n")
        assert [reader.line() for _ in range(7)][-1] == "now"
        assert (tmp_path / "pages").read_text().split()[0] == "a+b"
        assert [writer.line() for _ in range(3)] == [":1", ":1", ":1"]
        assert (tmp_path / "pages").read_text().split() == ["a+b", "c"]


def test_a_resource_of_a_batch_knows_the_session_and_publishes_when_it_has_ended(tmp_path):
    app = App(protocol=Resp())
    path = tmp_path / "words"

    @app.resource(scope="batch")
    def page(session: Session, pubsub: PubSub) -> Iterator[Page]:
        page = Page()
        page.words.append(str(len(session)))
        page.pubsub = pubsub
        yield page
        path.write_text("+".join(page.words))
        pubsub.publish(b"news", page.words[-1].encode())

    @app.handler
    def note(word: str, page: Page, session: Session) -> int:
        session[word] = 1
        page.words.append(word)
        return len(page.words)

    @app.handler
    def early(page: Page) -> None:
        assert page.pubsub is not None
        page.pubsub.publish(b"news", b"too early")

    with serve_patiently(app) as server, server.connect() as reader, server.connect() as writer:
        reader.send(b"SUBSCRIBE news\r\n")
        assert [reader.line() for _ in range(6)][-1] == ":1"
        for words, expected in (("a b", "0+a+b"), ("c", "2+c")):
            writer.send(b"".join(b"NOTE %b\r\n" % word.encode() for word in words.split()))
            assert [reader.line() for _ in range(7)][-1] == expected[-1]
            assert path.read_text() == expected
            assert [writer.line() for _ in words.split()] == [":2", ":3"][: len(words.split())]
        writer.send(b"EARLY\r\n")
        assert "internal error" in writer.line()


def test_the_log_names_the_id_of_a_batch_that_could_not_be_committed(launch, tmp_path):
    source = tmp_path / "app.py"
    source.write_text(
        "from collections.abc import Iterator\nimport linepool\n"
        "class Page: pass\n"
        "@linepool.resource(scope='batch')\n"
        "def page() -> Iterator[Page]:\n    yield Page()\n    raise OSError('the disk is full')\n"
        "@linepool.handler\n"
        "def note(page: Page) -> None: ...\n"
    )
    server = launch(str(source))
    number = server.ask("NOTE").rpartition(" ")[2]
    assert server.wait_for(f"batch failed id={number} peer=127.0.0.1:")
    assert server.wait_for("OSError: the disk is full")
    assert server.status()["counters"]["errors"] == 1
