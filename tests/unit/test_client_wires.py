"""The client's JSON-RPC and RESP: what the server's protocols write is read back, however it is cut."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool import App, JsonRpc, Resp
from linepool.client import CallTimeout
from linepool.client.core import Buffer, Kind, ProtocolError
from linepool.client.jsonrpc import JsonRpcCore
from linepool.client.jsonrpc import prepare as prepare_jsonrpc
from linepool.client.request import Prepared
from linepool.client.resp import RespCore
from linepool.client.resp_calls import prepare as prepare_resp
from linepool.client.wires import spoken
from linepool.errors import ClientError, ServerError, UnknownCommand, UsageError
from linepool.protocols.resp import values as resp_values
from linepool.protocols.resp.values import OK, NullArray, Push, Status, Verbatim

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
RESP = st.recursive(
    SCALARS | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def as_events(values):
    return [(Kind.SEVERAL if isinstance(one, list) else Kind.VALUE, one) for one in values]


def asked(core, count=1):
    """Return a core that has sent some requests, and was greeted."""
    for _ in range(count):
        core.request(b"", as_json=False)
    if isinstance(core, RespCore):
        core.feed(b"%1\r\n$5\r\nproto\r\n:3\r\n")
    return core


def whole(core, parts):
    """Return the replies in a stream that comes in parts."""
    found = []
    for part in filter(None, parts):
        core.feed(part)
        while (event := core.reply()) is not None:
            found.append(event)
    return found


def cut(stream, data):
    """Return a stream in two parts, and byte by byte."""
    at = data.draw(st.integers(0, len(stream)))
    return [stream[:at], stream[at:]], [stream[i : i + 1] for i in range(len(stream))]


@given(st.lists(JSON, min_size=1, max_size=4), st.data())
def test_what_jsonrpc_writes_is_read_back_however_it_is_cut(replies, data):
    stream = b"".join(
        json.dumps({"jsonrpc": "2.0", "result": reply, "id": number}).encode() + b"\r\n"
        for number, reply in enumerate(replies, 1)
    )
    for parts in cut(stream, data):
        core = asked(JsonRpcCore(), len(replies))
        assert whole(core, parts) == as_events(replies)
        assert core.is_at_rest


@given(st.lists(RESP, min_size=1, max_size=4), st.data())
def test_what_resp_writes_is_read_back_however_it_is_cut(replies, data):
    stream = b"".join(resp_values.encode(reply, 3) for reply in replies)
    for parts in cut(stream, data):
        core = asked(RespCore(), len(replies))
        assert whole(core, parts) == as_events(replies)
        assert core.is_at_rest


def test_resp_values_of_all_types():
    pairs: list[tuple[Any, Any]] = [
        (OK, "OK"),
        (Status("a b"), "a b"),
        (2**70, 2**70),
        (math.inf, math.inf),
        (NullArray(), None),
        (Verbatim("*a*", "mkd"), b"*a*"),
        ({1, 2}, [1, 2]),
        ([[], {}, [None]], [[], {}, [None]]),
        (b"\r\n", b"\r\n"),
    ]
    stream = b"".join(resp_values.encode(value, 3) for value, _ in pairs)
    stream += b"|1\r\n+ttl\r\n:5\r\n!22\r\nSYNTAX invalid\r\nsyntax\r\n"
    core = asked(RespCore(), len(pairs) + 1)
    *values, (kind, error) = whole(core, [stream])
    assert values == as_events(read for _, read in pairs)
    assert (kind, error.code, str(error)) == (Kind.ERROR, "SYNTAX", "invalid\r\nsyntax")
    assert core.is_at_rest


def test_resp_pushes_come_between_replies():
    core = asked(RespCore(), 2)
    push = resp_values.encode(Push([b"message", b"news", b"hello"]), 3)
    core.feed(push + b":1\r\n" + push)
    assert core.event() == (Kind.PUSH, [b"message", b"news", b"hello"])
    assert core.reply() == (Kind.VALUE, 1)
    core.feed(b"*1\r\n:2\r\n")
    assert core.reply() == (Kind.SEVERAL, [2])


def test_resp_begins_with_version_3_and_goes_on_with_2_if_there_is_no_other():
    core = RespCore()
    first = core.request(b"*1\r\n$1\r\nf\r\n", as_json=False)
    assert first == b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*1\r\n$1\r\nf\r\n"
    assert core.request(b"*1\r\n$1\r\ng\r\n", as_json=False, wait_ms=5) == b"*1\r\n$1\r\ng\r\n"
    core.feed(b"-ERR unknown command 'HELLO'\r\n$-1\r\n*-1\r\n")
    assert [core.reply(), core.reply()] == [(Kind.VALUE, None)] * 2
    assert core.is_at_rest


def test_a_refusal_of_the_connection_is_one_in_both():
    core = RespCore()
    core.request(b"*1\r\n$1\r\nf\r\n", as_json=False)
    core.feed(b"-ERR too many connections; try again later\r\n")
    kind, error = core.reply() or (None, None)
    assert (kind, str(error)) == (Kind.REFUSAL, "too many connections; try again later")

    core = asked(JsonRpcCore())
    core.feed(b'{"jsonrpc":"2.0","error":{"code":-32603,"message":"too many"},"id":null}\n')
    kind, error = core.reply()
    assert (kind, type(error), str(error)) == (Kind.REFUSAL, ServerError, "too many")


@pytest.mark.parametrize(
    ("core", "stream"),
    [
        (JsonRpcCore, b"ERROR no\n"),
        (JsonRpcCore, b"[]\n"),
        (JsonRpcCore, b'{"jsonrpc":"2.0","result":1,"id":2}\n'),
        (JsonRpcCore, b'{"jsonrpc":"2.0","result":1}\n'),
        (JsonRpcCore, b'{"jsonrpc":"2.0","error":"no","id":1}\n'),
        (JsonRpcCore, b'{"jsonrpc":"2.0","result":NaN,"id":1}\n'),
        (RespCore, b":1\r\n:2\r\n"),
        (RespCore, b":1\n"),
        (RespCore, b":x\r\n"),
        (RespCore, b"#x\r\n"),
        (RespCore, b"$-2\r\n"),
        (RespCore, b"$1\r\nabc"),
        (RespCore, b"%1\r\n*1\r\n:1\r\n:1\r\n"),
        (RespCore, b"HTTP/1.1 400 Bad Request\r\n"),
    ],
)
def test_what_is_no_reply_is_a_protocol_error(core, stream):
    asked_core = asked(core())
    with pytest.raises(ProtocolError):
        whole(asked_core, [stream])


@pytest.mark.parametrize("core", [JsonRpcCore, RespCore])
@given(stream=st.lists(st.sampled_from(b'+-:$*%~>|_,#=!(12\r\n{}[]"a:,'), max_size=40).map(bytes))
def test_any_bytes_are_replies_or_a_protocol_error(core, stream):
    asked_core = asked(core(), 3)
    try:
        whole(asked_core, [stream])
        asked_core.feed(b"")
    except ProtocolError:
        pass


def test_the_work_for_a_reply_is_linear_in_its_bytes():
    class Counted(bytes):
        __slots__ = ()

    size, chunk = 4_000_000, b"x" * 1000
    buffer = Buffer()
    for _ in range(size // len(chunk)):  # quadratic work would take minutes
        buffer.feed(chunk)
        assert buffer.line() is None
    buffer.feed(b"\n" + chunk)
    line = buffer.line()
    assert line is not None
    assert len(line) == size
    for _ in range(size // len(chunk)):
        assert buffer.block(size + 1000) is None
        buffer.feed(chunk)
    block = buffer.block(size + 1000)
    assert block is not None
    assert len(block) == size + 1000
    assert not buffer


def both(handler=None):
    """Return apps of both protocols with a handler."""
    found = [App(protocol=JsonRpc()), App(protocol=Resp())]
    if handler is not None:
        for app in found:
            app.handler(handler)
    return found


@pytest.mark.parametrize("app", both(), ids=["jsonrpc", "resp"])
@pytest.mark.parametrize(
    ("error", "kind", "texts"),
    [
        (UnknownCommand(), UnknownCommand, ("Method not found", "unknown command 'x'")),
        (ServerError("internal error, id 0123abcd"), ServerError, ("internal error, id 0123abcd",)),
        (ServerError("internal error, id 0123abcd, fault 12"), ServerError, ("internal error",)),
        (ClientError("no"), ClientError, ("no",)),
    ],
)
def test_errors_keep_their_kind(app, error, kind, texts):
    service = app.freeze()
    protocol = service.open_protocol()
    core = asked(JsonRpcCore() if isinstance(app.protocol, JsonRpc) else RespCore())
    protocol.feed(
        b'{"jsonrpc":"2.0","id":1,"method":"x"}\n' if core.__class__ is JsonRpcCore else b"x\r\n"
    )
    core.feed(protocol.encode_error(error, protocol.next_request()))
    found, read = core.reply()
    assert (found, type(read)) == (Kind.ERROR, kind)
    assert str(read).startswith(texts)
    assert read.id == ("0123abcd" if kind is ServerError else None)


def test_codes_data_and_usage_of_errors():
    core = asked(JsonRpcCore(), 4)
    for number, facts in enumerate(
        (
            {"code": 404, "message": "no item", "data": {"sku": 1}},
            {"code": -32602, "message": "Invalid params: a must be int, not 'x'. Usage: add a:int"},
            {"code": -32603, "message": "it is late", "data": {"why": "deadline"}},
            {"code": -32000, "message": "no"},
        ),
        1,
    ):
        core.feed(json.dumps({"jsonrpc": "2.0", "error": facts, "id": number}).encode() + b"\n")
    item, usage, late, plain = (core.reply()[1] for _ in range(4))
    assert (type(item), item.code, item.data) == (ClientError, 404, {"sku": 1})
    assert (type(usage), usage.usage) == (UsageError, "add a:int")
    assert str(usage) == "a must be int, not 'x'. Usage: add a:int"
    assert isinstance(late, CallTimeout)
    assert plain.code is None

    core = asked(RespCore(), 5)
    core.feed(b"-NOITEM no item\r\n-ERR the request took longer than 2 s\r\n")
    core.feed(b"-ERR wrong number of arguments for 'f' command\r\n-ERR internal error\r\n-oops\r\n")
    item, late, usage, failed, plain = (core.reply()[1] for _ in range(5))
    assert (type(item), item.code, str(item)) == (ClientError, "NOITEM", "no item")
    assert isinstance(late, CallTimeout)
    assert (type(usage), usage.problem) == (UsageError, "missing")
    assert type(failed) is ServerError
    assert (type(plain), plain.code, str(plain)) == (ClientError, None, "oops")


def store(key: str, value: bytes = b"", ttl: int = 5, *, ex: int | None = None, nx: bool = False):
    """A function with what RESP has options for."""


def words(*given, **named):
    """Return the words of a call."""
    line = prepare_resp(*given, **named)[0].line
    return line.split(b"\r\n")[2:-1:2]


def test_arguments_as_words_of_resp():
    assert words(store, ("k", b"v"), {}) == [b"store", b"k", b"v"]
    assert RespCore.command_in(prepare_resp(store, ("k",), {})[0].line) == "store"
    assert words(store, (), {"key": "k", "ex": 7}) == [b"store", b"k", b"EX", b"7"]
    assert words(store, ("k",), {"ttl": 1, "nx": True}) == [b"store", b"k", b"", b"1", b"NX"]
    assert words(store, ("k",), {"nx": False, "ex": None}) == [b"store", b"k"]
    named = {"ex": 7, "nx": True, "px": None, "xx": False}
    assert words("SET", ("k", 1.5), named) == [b"SET", b"k", b"1.5", b"EX", b"7", b"NX"]
    mixed = (1, True, [1, {"a": b"\xff"}], "é")
    assert words("f", mixed, {}) == [b"f", b"1", b"true", b'[1,{"a":"/w=="}]', "é".encode()]


@pytest.mark.parametrize(
    ("given_", "named", "text"),
    [
        (("k", None), {}, "RESP has no word for None: leave the argument out"),
        (("k", b"v", 1, 2), {}, r"store\(\) takes 3 arguments, not 4"),
        (("k",), {"px": 1}, r"store\(\) has no parameter 'px'"),
        (("k",), {"key": "k"}, r"store\(\) is given 'key' twice"),
        ((), {"value": b"v"}, r"store\(\) needs 'key' too, as 'value' is the word after it"),
        (({1: object()},), {}, "object"),
    ],
)
def test_arguments_that_have_no_words_are_refused(given_, named, text):
    with pytest.raises(TypeError, match=text):
        prepare_resp(store, given_, named)


def test_requests_of_jsonrpc():
    core = JsonRpcCore()
    prepared, _ = prepare_jsonrpc(store, ("k",), {"ttl": 2})
    assert json.loads(core.request(*prepared, 450)) == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "store",
        "params": {"key": "k", "ttl": 2},
        "timeout_ms": 450,
    }
    prepared, _ = prepare_jsonrpc('item."get', (1, "a"), {})
    assert core.request(*prepared) == (
        b'{"jsonrpc":"2.0","id":2,"method":"item.\\"get","params":[1,"a"]}\n'
    )
    assert isinstance(prepared, Prepared)
    assert core.command_in(prepared.line) == 'item."get'
    traced = json.loads(core.request(*prepared._replace(trace="00-1-2-01")))
    assert traced["traceparent"] == "00-1-2-01"


def test_a_protocol_that_is_unknown_is_refused():
    with pytest.raises(
        ValueError, match="protocol must be 'line', 'jsonrpc' or 'resp', not 'http'"
    ):
        spoken("http")  # type: ignore[arg-type]
