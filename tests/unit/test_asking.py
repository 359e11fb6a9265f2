"""``App.ask``: what it takes and returns, exceptions that are raised in the test, and what it keeps."""

import logging
import traceback
from collections.abc import Iterator

import pytest

import linepool
from linepool import App, ClientError, Session
from linepool.protocols.dialogue import Dialogue
from linepool.protocols.jsonrpc import JsonRpc
from linepool.protocols.memcache import Memcache
from linepool.protocols.resp import Resp


class Log(list[str]):
    """What a resource yields."""


class BrokenError(Exception):
    """What the app's own code raises."""


@pytest.fixture
def app() -> App:
    app = App()

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def say(word: bytes) -> bytes:
        return word

    @app.handler
    def put(size: int, data: bytes = linepool.body("size")) -> bytes:
        return data

    @app.handler
    def rows() -> list[str]:
        return ["a", "b"]

    return app


# -- what it takes and returns


def test_a_str_gets_a_str(app):
    assert app.ask("ADD 2 3\r\n") == "5\r\n"
    assert app.ask("say größe\n") == "größe\n"


def test_bytes_get_bytes(app):
    assert app.ask(b"ADD 2 3\r\n") == b"5\r\n"


def test_without_the_end_of_its_last_line_it_gets_a_reply_without_that(app):
    assert app.ask("ADD 2 3") == "5"
    assert app.ask(b"ADD 2 3") == b"5"
    assert app.ask("rows") == "a\nb\nEND"
    assert app.ask("ADD 2 3\nADD 4 5") == "5\n9"
    assert app.ask("ADD 2 3\r\nADD 4 5\r") == "5\r\n9"
    assert app.ask("fro") == "ERROR unknown command 'fro'. HELP lists the commands."


def test_a_data_block_is_completed_too(app):
    assert app.ask("put 5\nhello") == "hello"
    assert app.ask("put 5\nhel") == (
        "CLIENT_ERROR the data block is incomplete; the request was not run"
    )


def test_nothing_stays_nothing(app):
    assert app.ask("") == ""
    assert app.ask(b"") == b""


def test_a_str_can_hold_bytes_that_are_no_text(app):
    reply = app.ask(b"say \xe9\n".decode("utf-8", "surrogateescape"))
    assert reply.encode("utf-8", "surrogateescape") == b"\xe9\n"


@pytest.mark.parametrize("data", [3, None, bytearray(b"ADD 2 3"), ["ADD 2 3"]])
def test_it_takes_nothing_else(app, data):
    with pytest.raises(TypeError, match="takes str or bytes, not " + type(data).__name__):
        app.ask(data)


@pytest.mark.parametrize(
    ("protocol", "command", "reply"),
    [
        (Resp(), "PING", "+PONG"),
        (Resp(), "*1\r\n$4\r\nPING", "+PONG"),
        (Memcache(version="7"), "version", "VERSION 7"),
        (JsonRpc(), '{"jsonrpc":"2.0","id":1,"method":"no"}', '{"jsonrpc"'),
        (Dialogue(), "noop", "220 ready\r\n250"),
    ],
    ids=["resp inline", "resp", "memcache", "json-rpc", "dialogue"],
)
def test_each_protocol_of_lines_is_completed(protocol, command, reply):
    answer = App(protocol=protocol).ask(command)
    assert answer.startswith(reply)
    assert not answer.endswith("\n")


def test_a_message_with_headers_is_left_as_it_is():
    app = App(protocol=JsonRpc(framing="headers"))
    message = '{"jsonrpc":"2.0","id":1,"method":"no"}'
    reply = app.ask(f"Content-Length: {len(message)}\r\n\r\n{message}")
    assert reply.startswith("Content-Length: ")
    assert reply.endswith("}")


# -- exceptions


@pytest.fixture
def broken() -> App:
    app = App()
    app.handler("ok")(lambda: "OK")

    @app.handler
    def fail() -> None:
        raise BrokenError("of the app")

    @app.handler
    def refuse() -> None:
        raise ClientError("not today")

    @app.handler
    def stream() -> Iterator[int]:
        yield 1
        raise BrokenError("in a stream")

    @app.handler
    def unfit() -> object:
        return object()

    return app


def test_an_exception_is_a_reply_by_default(broken, caplog):
    with caplog.at_level(logging.CRITICAL):
        assert broken.ask("fail").startswith("SERVER_ERROR internal error, id ")


@pytest.mark.parametrize(
    ("command", "error", "text"),
    [
        ("fail", BrokenError, "of the app"),
        ("ok\nfail\nok", BrokenError, "of the app"),
        ("stream", BrokenError, "in a stream"),
        ("unfit", TypeError, "cannot send a object"),
    ],
)
def test_it_is_raised_if_that_is_asked_for(broken, command, error, text):
    with pytest.raises(error, match=text):
        broken.ask(command, raise_errors=True)


def test_its_traceback_shows_the_code_of_the_app_only(broken):
    with pytest.raises(BrokenError) as raised:
        broken.ask("fail", raise_errors=True)

    names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert names[-1] == "fail"
    assert "answer" not in names


def test_errors_that_are_replies_stay_replies(broken):
    assert broken.ask("refuse", raise_errors=True) == "CLIENT_ERROR not today"
    assert broken.ask("ok 1", raise_errors=True).startswith("CLIENT_ERROR too many arguments")
    assert broken.ask("fro", raise_errors=True).startswith("ERROR unknown command")


@pytest.mark.parametrize("hook", ["on_connect", "on_disconnect"])
def test_what_a_hook_of_a_connection_raises_is_raised_too(broken, hook):
    @getattr(broken, hook)
    def fail() -> None:
        raise BrokenError("in a hook")

    with pytest.raises(BrokenError, match="in a hook"):
        broken.ask("ok", raise_errors=True)


def test_no_request_behind_it_is_run_and_resources_end_as_usual(caplog):
    log = Log()
    app = App()

    @app.resource
    def journal() -> Iterator[Log]:
        log.append("opened")
        yield log
        log.append("closed")

    @app.handler
    def note(word: str, journal: Log) -> None:
        journal.append(word)
        if word == "bad":
            raise BrokenError

    @app.on_error
    def seen(error: BaseException, request: object, session: Session) -> None:
        log.append(type(error).__name__)

    with caplog.at_level(logging.CRITICAL), pytest.raises(BrokenError):
        app.ask("note a\nnote bad\nnote b", raise_errors=True)
    assert log == ["opened", "a", "bad", "BrokenError", "closed"]


# -- what is kept between two calls


def test_the_app_is_made_ready_once_until_it_changes(app, monkeypatch):
    frozen = []
    freeze = App.freeze

    def counted(self, *arguments):
        frozen.append(self)
        return freeze(self, *arguments)

    monkeypatch.setattr(App, "freeze", counted)
    for _ in range(3):
        assert app.ask("ADD 2 3") == "5"
    assert len(frozen) == 1

    app.handler("triple")(lambda: 3)
    assert app.ask("triple") == "3"
    app.middleware(lambda request, session, call_next: "changed")
    assert app.ask("ADD 2 3") == "changed"
    app.on_connect(lambda: "hello")
    assert app.ask("ADD 2 3") == "hello\r\nchanged"
    app.settings = {"max_line_bytes": 16}
    assert "16 bytes" in app.ask("ADD 2 3" + " " * 20)
    app.builtins = False
    assert app.ask("help") == "hello\r\nchanged"
    assert len(frozen) == 6
