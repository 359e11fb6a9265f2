"""Compiled calls: the fast path to a handler gives the same result as ``Signature.bind``."""

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import linepool
from linepool import App, Range, Request, Rest, Session, Verb
from linepool.conversation import Conversation
from linepool.errors import ReplyError, UsageError
from linepool.handlers.compile import compile_call
from linepool.resources import Resources

APP = App()


@APP.handler
def none() -> str:
    return "none"


@APP.handler
def one(word: str) -> Any:
    return word


@APP.handler
def plain(a: int, b: float, c: bytes, d: bool) -> Any:
    return a, b, c, d


@APP.handler
def bounded(a: Annotated[int, Range(0, 9)], b: str = "no") -> Any:
    return a, b


@APP.handler
def injected(session: Session, key: str, verb: Verb, size: int) -> Any:
    return session.id, key, verb, size


@APP.handler
def many(first: int, *others: int) -> Any:
    return first, others


@APP.handler
def rest(key: str, text: Rest) -> Any:
    return key, text


@APP.handler
def options(key: str, *, limit: int = 3, force: bool = False) -> Any:
    return key, limit, force


@APP.handler
def keywords(key: str, *others: int, session: Session) -> Any:
    return key, others, session.id


@APP.handler
def optional(key: str, *, session: Session, limit: int | None, force: bool = False) -> Any:
    return key, session.id, limit, force


@APP.handler
def block(key: str, size: int, data: bytes = linepool.body("size")) -> Any:
    return key, size, data


@APP.handler
def wrong(a: int) -> Any:
    raise ValueError(a)


SERVICE = APP.freeze()
CONVERSATION = Conversation(SERVICE, Session("1-1"), Resources())
WORDS = st.sampled_from(
    [b"1", b"-7", b"1_0", b"2.5", b"nan", b"true", b"no", b"LIMIT", b"FORCE", b"", b"\xff", b" 3 "]
)


def call_with_bind(request: Request, conversation: Conversation) -> Any:
    args, kwargs = request.command.signature.bind(request, conversation)
    return request.command.function(*args, **kwargs)


def outcome(call: Any, request: Request) -> object:
    """Return the result of a call in a form that can be compared."""
    try:
        return repr(call(request, CONVERSATION))
    except UsageError as error:
        return error.problem, error.parameter
    except (ValueError, ReplyError) as error:
        return repr(error)


@given(st.sampled_from(SERVICE.commands), st.lists(WORDS, max_size=5))
def test_the_fast_path_and_bind_give_the_same_result(entry, words):
    request = Request(entry.names[0].encode(), words, entry, b"data")

    assert outcome(entry.call, request) == outcome(call_with_bind, request)


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [
        ("NONE", [], "none"),
        ("ONE", [b"w"], "w"),
        ("PLAIN", [b"1", b"2.5", b"x", b"yes"], (1, 2.5, b"x", True)),
        ("BOUNDED", [b"9", b"x"], (9, "x")),
        ("INJECTED", [b"k", b"3"], ("1-1", "k", "INJECTED", 3)),
        ("MANY", [b"1", b"2", b"3"], (1, (2, 3))),
        ("REST", [b"k", b"a  b"], ("k", "a  b")),
        ("OPTIONS", [b"k"], ("k", 3, False)),
        ("KEYWORDS", [b"k", b"1"], ("k", (1,), "1-1")),
        ("OPTIONAL", [b"k"], ("k", "1-1", None, False)),
        ("BLOCK", [b"k", b"4"], ("k", 4, b"data")),
    ],
)
def test_valid_words_take_the_fast_path(name, words, value):
    entry = SERVICE.table[name.encode()]

    def never(*_: Any) -> Any:
        pytest.fail("it did not take the fast path")

    call = compile_call(entry.function, entry.signature, never)

    assert call(Request(name.encode(), words, entry, b"data"), CONVERSATION) == value


def test_the_error_of_a_handler_is_the_first_one_whichever_path_led_to_it():
    """Otherwise the log shows an exception of linepool's own before it."""
    app = App()

    @app.handler
    def fail(word: str, other: str = "") -> None:
        raise KeyError(word + other)

    for line in ("FAIL a", "FAIL a b"):
        with pytest.raises(KeyError) as error:
            app.ask(line, raise_errors=True)
        assert error.value.__context__ is None


@pytest.mark.parametrize("line", ["FAIL a", "FAIL a b"])
def test_the_log_shows_a_handlers_error_from_its_own_code_on(line, caplog):
    app = App()

    @app.handler
    def fail(word: str, other: str = "") -> None:
        raise KeyError(word + other)

    assert app.ask(line).startswith("SERVER_ERROR internal error")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[2] is not None
    assert record.exc_info[2].tb_frame.f_code is fail.__code__
