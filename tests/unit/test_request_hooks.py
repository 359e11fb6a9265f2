"""Generator middleware, on_error, and the ids of requests."""

import re
import sqlite3
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from linepool import App, ClientError, JsonRpc, Reply, Request, RequestTimeout, Session, SetupError
from linepool.conversation import Conversation

Around = Generator[None, None, None]
INTERNAL = re.compile(rb"internal error, id ([0-9a-f]+)")


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def app(seen: list[Any]) -> App:
    app = App()

    @app.middleware
    def around(request: Request, session: Session) -> Around:
        try:
            yield
        except BaseException as error:
            seen.append(f"{request.verb.decode()} {type(error).__name__}")
            raise
        seen.append(f"{request.verb.decode()} complete")

    @app.handler
    def one() -> int:
        return 1

    @app.handler
    def fail(text: str = "") -> None:
        raise KeyError(text)

    @app.handler
    def refuse() -> None:
        raise ClientError("no")

    @app.handler
    def late() -> None:
        raise RequestTimeout("too late")

    add_streams(app, seen)
    return app


def add_streams(app: App, seen: list[Any]) -> None:
    @app.handler
    def count(most: int) -> Iterator[int]:
        yield from range(most)
        seen.append("counted")

    @app.handler
    def breaks() -> Iterator[int]:
        yield 1
        raise KeyError

    @app.handler
    def unsendable() -> Iterator[object]:
        yield object()

    @app.handler
    def wrapped() -> Reply:
        return Reply(iter([1]), close=True)


def conversation(app: App) -> Conversation:
    with app.worker() as resources:
        return Conversation(app.freeze(), Session("1", "peer", "here"), resources)


def begun(app: App, line: bytes) -> Generator[bytes, None, None]:
    """Return the reply to a line, in parts."""
    talk = conversation(app)
    talk.feed(line)
    request = talk.protocol.next_request()
    assert isinstance(request, Request)
    parts = talk.answer(request)
    assert isinstance(parts, Generator)
    return parts


@pytest.mark.parametrize(
    ("line", "events"),
    [
        (b"one\n", ["one complete"]),
        (b"fail x\n", ["fail KeyError"]),
        (b"refuse\n", ["refuse ClientError"]),
        (b"one 2\n", ["one UsageError"]),
        (b"fro\n", ["fro UnknownCommand"]),
        (b"late\n", ["late RequestTimeout"]),
        (b"count 2\n", ["counted", "count complete"]),
        (b"breaks\n", ["breaks KeyError"]),
        (b"unsendable\n", ["unsendable TypeError"]),
        (b"wrapped\n", ["wrapped complete"]),
    ],
)
def test_generator_middleware_runs_around_the_whole_reply(app: App, seen, line, events):
    app.ask(line)
    assert seen == events


@pytest.mark.parametrize("parts_read", [0, 1])
def test_generator_middleware_sees_the_end_of_a_connection_as_generator_exit(app, seen, parts_read):
    parts = begun(app, b"count 3\n")
    for _ in range(parts_read):
        next(parts)
    parts.close()
    assert seen == ["count GeneratorExit"]


def test_generator_middleware_sees_a_time_limit_that_ends_a_suspended_stream(app: App, seen):
    talk = conversation(app)
    talk.feed(b"count 3\n")
    parts = talk.answer(talk.protocol.next_request())  # type: ignore[arg-type]
    next(parts)  # type: ignore[arg-type]
    talk.overdue = RequestTimeout("too late")
    assert next(parts) == b"SERVER_ERROR too late\n"  # type: ignore[arg-type]
    assert seen == ["count RequestTimeout"]


def test_kinds_of_middleware_compose_from_the_outermost_to_the_innermost(app: App, seen):
    @app.middleware
    def plain(request, session, call_next):
        seen.append("plain")
        return call_next(request)

    @app.middleware
    def inner(request, session):
        seen.append("inner")
        yield
        seen.append("inner ends")

    assert app.ask(b"count 1\none\n") == b"0\nEND\n1\n"
    assert seen == [
        *("plain", "inner", "counted", "inner ends", "count complete"),
        *("plain", "inner", "inner ends", "one complete"),
    ]


def test_generator_middleware_may_replace_an_error_but_not_hide_it(app: App, seen):
    @app.middleware
    def inner(request, session):
        try:
            yield
        except KeyError as error:
            if error.args == ("hide",):
                return
            raise ClientError("in other words") from None

    assert app.ask(b"fail x\n") == b"CLIENT_ERROR in other words\n"
    assert b"internal error" in app.ask(b"fail hide\n")
    assert app.ask(b"breaks\n") == b"1\nCLIENT_ERROR in other words\n"
    assert seen == ["fail ClientError", "fail KeyError", "breaks ClientError"]


def test_generator_middleware_yields_once(app: App, caplog):
    app = App()
    app.handler("one")(lambda *words: 1)

    @app.middleware
    def odd(request: Request, session: Session) -> Around:
        for _ in request.words:
            yield

    for words in (b"", b" a b"):
        assert b"internal error" in app.ask(b"one" + words + b"\n")
    assert "has not yielded" in caplog.text
    assert "must yield once" in caplog.text


def test_a_generator_that_takes_call_next_makes_a_stream_of_another():
    app = App()

    @app.middleware
    def doubled(request, session, call_next):
        for item in call_next(request):
            yield 2 * item

    app.handler("some")(lambda: iter([1, 2]))
    assert app.ask(b"some\n") == b"2\n4\nEND\n"


def _one(request):
    yield


def _four(request, session, call_next, more):
    yield


def _hook(exception, request): ...
def _generator(exception, request, session):
    yield


def _keywords(*, exception, request, session): ...
@pytest.mark.parametrize(
    ("register", "function", "message"),
    [
        (
            "middleware",
            _one,
            r"generator middleware _one at .* must take \(request, session\) or \(",
        ),
        ("middleware", _four, r"must take \(request, session"),
        ("on_error", _hook, r"on_error _hook at .* must take \(exception, request, session\)"),
        ("on_error", _keywords, "must take"),
        ("on_error", _generator, "must not be a generator"),
        ("on_error", "text", "is not a function"),
    ],
)
def test_what_cannot_be_called_is_refused_when_it_is_registered(
    register: str, function: Callable[..., Any], message: str
):
    with pytest.raises(SetupError, match=message):
        getattr(App(), register)(function)


def test_on_error_may_take_resources_and_nothing_else(app: App, seen):
    @app.resource
    def base() -> Iterator[sqlite3.Connection]:
        with sqlite3.connect(":memory:") as connection:
            yield connection
        connection.close()

    @app.on_error
    def report(exception, request, session, base: sqlite3.Connection):
        seen.append(base.execute("select 7").fetchone()[0])

    app.ask(b"fail x\n")
    assert seen[-1] == 7

    @app.on_error
    def other(exception, request, session, further): ...

    with pytest.raises(SetupError, match=r"on_error other .* resources of the worker"):
        app.freeze()


@pytest.fixture
def told(app: App) -> list[Any]:
    told: list[Any] = []

    @app.on_error
    def report(exception: BaseException, request: Request | None, session: Session) -> None:
        told.append((type(exception).__name__, request and request.verb.decode(), session.peer))

    return told


def test_on_error_is_called_for_what_is_not_a_reply(app: App, told):
    app.ask(b"one\nrefuse\none 2\nfro\n")
    assert told == []
    app.ask(b"fail x\nlate\nbreaks\nunsendable\n")
    assert told == [
        ("KeyError", "fail", "ask"),
        ("RequestTimeout", "late", "ask"),
        ("KeyError", "breaks", "ask"),
        ("TypeError", "unsendable", "ask"),
    ]


@pytest.mark.parametrize("hook", ["on_connect", "on_disconnect"])
def test_on_error_is_called_for_hooks_of_connections(app: App, told, hook):
    getattr(app, hook)(lambda: 1 / 0)
    app.ask(b"one\n")
    assert told == [("ZeroDivisionError", None, "ask")]


def test_on_error_is_called_for_the_end_of_a_batch(app: App, told):
    @app.resource(scope="batch")
    def transaction() -> Iterator[dict[str, int]]:
        yield {}
        raise OSError

    @app.handler
    def use(transaction: dict[str, int]) -> None: ...

    assert b"internal error" in app.ask(b"use\n")
    assert told == [("OSError", None, "ask")]


def test_on_error_is_called_for_each_call_of_a_batch():
    app, told = App(protocol=JsonRpc()), []
    app.handler("fail")(lambda: 1 / 0)

    @app.handler
    def breaks() -> Iterator[int]:
        yield 1
        raise KeyError

    app.on_error(lambda error, request, _: told.append((type(error).__name__, request.id)))
    call = b'{"jsonrpc":"2.0","id":1,"method":"%b"}'
    reply = app.ask(b"[%b,%b]\n" % (call % b"fail", call % b"breaks"))
    assert [name for name, _ in told] == ["ZeroDivisionError", "KeyError"]
    assert [one.decode() for one in INTERNAL.findall(reply)] == [number for _, number in told]


def test_what_on_error_raises_is_logged_and_changes_nothing(app: App, told, caplog):
    app._error_hooks.insert(0, lambda *_: 1 / 0)
    assert INTERNAL.search(app.ask(b"fail x\none\n"))
    assert len(told) == 1
    assert [one.message for one in caplog.records if "on_error" in one.message] == [
        "on_error failed peer=ask"
    ]


def test_a_request_has_one_id_everywhere(app: App, caplog):
    ids: list[str] = []

    @app.handler
    def named(request_of: str = "") -> None:
        raise KeyError

    @app.middleware
    def early(request, session, call_next):
        if request.words:
            ids.append(request.id)
        return call_next(request)

    app.on_error(lambda error, request, session: ids.append(request.id))
    found = INTERNAL.findall(app.ask(b"named x\nnamed\n"))
    assert [one.decode() for one in found] == [ids[1], ids[2]]
    assert ids[0] == ids[1] != ids[2]
    assert f"id={ids[0]} " in caplog.text
    assert re.fullmatch("[0-9a-f]{12}", ids[0])


def test_the_first_digits_of_the_id_of_a_failure_name_the_fault(app: App):
    first, second = INTERNAL.findall(app.ask(b"fail x\nfail x\n"))
    assert first[:4] == second[:4]
    assert first != second
