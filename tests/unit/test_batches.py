"""Resources of the scope ``batch``: made once for the requests that are answered together."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from linepool import App, ClientError, Connection, JsonRpc, Resp, SetupError
from linepool.protocols.base import Protocol
from linepool.protocols.line import Line
from linepool.resources import Resources
from linepool.resources.graph import Recipe
from linepool.resources.opened import Made


class Book:
    """Where pages are kept; a resource of the worker."""

    def __init__(self) -> None:
        self.pages: list[list[str]] = []


class Page:
    """What the requests of one batch write."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.error: Exception | None = None


def notebook(book: Book, protocol: Protocol | None = None) -> App:  # noqa: C901 - many small ones
    """Return an app whose requests write on pages, which are added to the book as wholes."""
    app = App(protocol=protocol or Line())

    @app.resource
    def opened() -> Iterator[Book]:
        yield book
        book.pages.append(["closed"])

    @app.resource(scope="batch")
    def page(book: Book) -> Iterator[Page]:
        page = Page()
        yield page
        if page.error:
            raise page.error
        book.pages.append(page.words)

    @app.handler
    def note(word: str, page: Page) -> int:
        page.words.append(word)
        return len(page.words)

    @app.handler
    def read() -> str:
        return ",".join("+".join(words) for words in book.pages)

    @app.handler
    def spoil(page: Page) -> str:
        page.error = ValueError("the ink is wet")
        return "spoiled"

    @app.handler
    def refuse(page: Page) -> str:
        page.error = ClientError("the book is full")
        return "refused"

    @app.handler
    def fail(page: Page) -> None:
        page.words.append("failed")
        raise ZeroDivisionError

    @app.handler
    def push(word: str, page: Page, connection: Connection) -> str:
        page.words.append(word)
        connection.push("pushed")
        return word

    @app.handler
    def stream() -> Iterator[str]:
        yield f"streamed after {len(book.pages)}"

    return app


@pytest.fixture
def book() -> Book:
    """Give an empty book."""
    return Book()


def test_the_requests_that_are_answered_together_share_it(book):
    assert notebook(book).ask(b"note a\nread\nnote b\n") == b"1\n\n2\n"
    assert book.pages == [["a", "b"], ["closed"]]


def test_it_is_not_made_before_a_request_asks_for_it(book):
    assert notebook(book).ask(b"read\nread\n") == b"\n\n"
    assert book.pages == [["closed"]]


def test_if_it_cannot_be_ended_an_error_is_the_only_reply(book, caplog):
    said = notebook(book).ask(b"note a\nspoil\nnote b\nhelp\n")
    assert said.startswith(b"SERVER_ERROR internal error, id ")
    assert said.count(b"\n") == 1
    assert book.pages == [["closed"]]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"batch failed id={said.split()[-1].decode()} peer=ask")
    assert record.exc_info is not None
    assert "the ink is wet" in str(record.exc_info[1])


def test_it_may_say_itself_what_the_client_is_told(book):
    assert notebook(book).ask(b"note a\nrefuse\n") == b"CLIENT_ERROR the book is full\n"
    assert book.pages == [["closed"]]


@pytest.mark.parametrize(
    ("protocol", "script", "error"),
    [
        (Resp(), b"NOTE a\r\nSPOIL\r\n", b"-ERR internal error"),
        (
            JsonRpc(),
            b'{"jsonrpc":"2.0","method":"spoil","id":1}\n',
            b'{"jsonrpc":"2.0","error":{"code":-32603',
        ),
    ],
    ids=["resp", "jsonrpc"],
)
def test_the_error_is_one_of_the_protocol(book, protocol, script, error):
    assert notebook(book, protocol).ask(script).startswith(error)


def test_a_handler_that_fails_costs_the_others_nothing(book):
    first, failed, last = notebook(book).ask(b"note a\nfail\nnote b\n").splitlines()
    assert (first, last) == (b"1", b"3")
    assert failed.startswith(b"SERVER_ERROR internal error, id ")
    assert book.pages[0] == ["a", "failed", "b"]


def test_it_is_ended_before_a_stream_begins(book):
    assert notebook(book).ask(b"note a\nstream\nnote b\n") == b"1\nstreamed after 1\nEND\n1\n"
    assert book.pages == [["a"], ["b"], ["closed"]]


def test_a_push_ends_it_too(book):
    assert notebook(book).ask(b"note a\npush b\nnote c\n") == b"1\npushed\nb\n1\n"
    assert book.pages == [["a", "b"], ["c"], ["closed"]]


def test_nothing_is_pushed_if_it_cannot_be_ended(book):
    error, own = notebook(book).ask(b"note a\nspoil\npush b\nnote c\n").splitlines()
    assert error.startswith(b"SERVER_ERROR internal error, id ")
    assert own == b"SERVER_ERROR an earlier request has failed"
    assert book.pages == [["closed"]]


def test_resources_are_ended_last_first_and_learn_of_a_failure():
    events: list[str] = []
    app = App()

    @app.resource(scope="batch")
    def outer() -> Iterator[Book]:
        try:
            yield Book()
        except ValueError as error:
            events.append(f"outer rolls back: {error}")

    @app.resource(scope="batch")
    def inner() -> Iterator[Page]:
        yield Page()
        events.append("inner fails")
        raise ValueError("full")

    @app.handler
    def both(book: Book, page: Page) -> str:
        return "done"

    assert app.ask(b"both\n").startswith(b"SERVER_ERROR internal error, id ")
    assert events == ["inner fails", "outer rolls back: full"]


def test_one_that_cannot_be_made_is_an_error_of_its_request_alone():
    tries: list[str] = []
    app = App()

    @app.resource(scope="batch")
    def page() -> Iterator[Page]:
        tries.append("made")
        if len(tries) == 1:
            raise ValueError
        yield Page()
        tries.append("ended")

    @app.handler
    def note(word: str, page: Page) -> str:
        return word

    failed, noted = app.ask(b"note a\nnote b\n").splitlines()
    assert failed.startswith(b"SERVER_ERROR internal error, id ")
    assert noted == b"b"
    assert tries == ["made", "made", "ended"]


def test_one_that_was_interrupted_while_it_was_made_is_closed_before_it_is_made_again(monkeypatch):
    events: list[str] = []

    def page() -> Generator[int, None, None]:
        number = len(events)
        events.append(f"begin {number}")
        try:
            yield number
        finally:
            events.append(f"end {number}")

    opened = Made.open

    def interrupted(made: Made) -> Any:
        value = opened(made)
        if value == 0:
            made.value = Made(made.recipe, {}).value  # as if it had not been assigned yet
            raise TimeoutError  # as a signal's handler might between two instructions
        return value

    monkeypatch.setattr(Made, "open", interrupted)
    resources = Resources({"page": Recipe("page", "batch", page, {})})
    with pytest.raises(TimeoutError):
        resources["page"]
    assert resources["page"] == 2
    resources.end_batch()
    assert events == ["begin 0", "end 0", "begin 2", "end 2"]
    assert not resources.is_open


@pytest.mark.parametrize(("times", "why"), [(0, "yields nothing"), (2, "yields more than once")])
def test_it_must_yield_once(times, why, caplog):
    app = App()

    @app.resource(scope="batch")
    def page() -> Iterator[Page]:
        for _ in range(times):
            yield Page()

    @app.handler
    def note(word: str, page: Page) -> str:
        return word

    assert app.ask(b"note a\n").startswith(b"SERVER_ERROR internal error, id ")
    assert f"resource page {why}" in str(caplog.records[0].exc_info[1])


def test_hooks_of_a_connection_may_use_it(book):
    app = notebook(book)

    @app.on_connect
    def hello(page: Page) -> str:
        page.words.append("hello")
        return "welcome"

    @app.on_disconnect
    def bye(page: Page) -> None:
        page.words.append("bye")

    assert app.ask(b"read\n") == b"welcome\r\nhello\n"
    assert book.pages == [["hello"], ["bye"], ["closed"]]


def test_a_greeting_is_not_sent_if_it_cannot_be_ended(book):
    app = notebook(book)

    @app.on_connect
    def hello(page: Page) -> str:
        page.error = ClientError("the book is full")
        return "welcome"

    assert app.ask(b"read\n") == b"CLIENT_ERROR the book is full\r\n"


def test_middleware_runs_within_the_batch(book):
    app = notebook(book)

    @app.middleware
    def shout(request, session, call_next):
        return f"{call_next(request)}, {len(book.pages)} pages"

    assert app.ask(b"note a\nnote b\n") == b"1, 0 pages\n2, 0 pages\n"


def test_the_commands_of_a_transaction_share_it(book):
    script = b"MULTI\r\nNOTE a\r\nNOTE b\r\nEXEC\r\nNOTE c\r\n"
    said = notebook(book, Resp(transactions=True)).ask(script)
    assert said.endswith(b"*2\r\n:1\r\n:2\r\n:3\r\n")
    assert book.pages[0] == ["a", "b", "c"]


def test_another_scope_is_refused():
    with pytest.raises(
        SetupError, match="scope must be one of worker, connection, batch, request, not 'turn'"
    ):

        @App().resource(scope="turn")
        def page() -> Iterator[Page]:
            yield Page()


def test_a_generator_handler_is_refused(book):
    app = notebook(book)

    @app.handler
    def pages(page: Page | None) -> Iterator[str]:
        yield "a"

    with pytest.raises(
        SetupError, match=r"handler pages at .*: parameter page: resource page of the"
    ):
        app.freeze()


@pytest.mark.parametrize("event", ["on_worker_start", "on_worker_exit"])
def test_hooks_of_a_worker_are_refused(book, event):
    app = notebook(book)

    def hook(page: Page) -> None: ...

    getattr(app, event)(hook)
    with pytest.raises(
        SetupError, match=f"{event} hook at .*: parameter page: resource page of the scope"
    ):
        app.freeze()


def test_a_resource_of_the_worker_cannot_ask_for_one_of_a_batch(book):
    app = notebook(book)

    @app.resource
    def bad(page: Page) -> Iterator[Page]:
        yield page

    with pytest.raises(
        SetupError,
        match=r"resource bad at .*: parameter page: resource page of the scope batch ends before",
    ):
        app.freeze()
