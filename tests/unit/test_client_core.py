"""The client's core: what the server's framing writes it reads back, however the bytes are cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.client.core import Kind, ProtocolError, arguments_text
from linepool.client.errors import CallTimeout
from linepool.client.line import LineCore
from linepool.errors import ClientError, ReplyError, ServerError, UnknownCommand, UsageError
from linepool.protocols import framing
from linepool.protocols.framing import Framed

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ONE = SCALARS | TEXTS | st.dictionaries(TEXTS, JSON, max_size=3) | st.binary(max_size=20)
REPLIES = st.lists(
    ONE | st.lists(ONE | st.lists(JSON, max_size=2), max_size=4), min_size=1, max_size=5
)


def asked(count=1):
    """Return a core that has sent some requests."""
    core = LineCore()
    for _ in range(count):
        core.request(b"f []", True)
    return core


def framed(number):
    return Framed(b"f", [], None, None, b"\n", b"", head=b"@%d " % number)


def written(replies):
    """Return the bytes that the server's side writes in answer to requests 1, 2 ..."""
    return b"".join(framing.reply(reply, framed(number)) for number, reply in enumerate(replies, 1))


def whole(core, parts):
    """Return the replies in a stream that comes in parts."""
    found = []
    for part in filter(None, parts):
        core.feed(part)
        while (event := core.reply()) is not None:
            found.append(event)
    return found


def as_events(replies):
    return [(Kind.SEVERAL if isinstance(one, list) else Kind.VALUE, one) for one in replies]


@given(REPLIES)
def test_what_the_server_writes_is_read_back(replies):
    core = asked(len(replies))
    assert whole(core, [written(replies)]) == as_events(replies)
    assert core.is_at_rest


@given(REPLIES, st.data())
def test_how_the_bytes_are_cut_makes_no_difference(replies, data):
    stream = written(replies)
    at = data.draw(st.integers(0, len(stream)))
    for parts in ([stream[:at], stream[at:]], [stream[i : i + 1] for i in range(len(stream))]):
        assert whole(asked(len(replies)), parts) == as_events(replies)


def test_every_cut_of_a_stream_with_all_that_may_come():
    stream = (
        b'> "early"\n@1 *\n= 1\n# note\n> {"push":1}\n$ 3\na\nb\n.\n'
        b'@2 - {"error":"SERVER_ERROR","id":"0123abcd","text":"internal error"}\n'
        b'@3 *\n= null\n- {"error":"CLIENT_ERROR","text":"late"}\n# note\n@4 $ 0\n\n'
    )

    def read(parts):
        core, found = asked(4), []
        for part in filter(None, parts):
            core.feed(part)
            while (event := core.event()) is not None:
                found.append((event[0], str(event[1])))
        return found

    expected = read([stream])
    assert [kind.name for kind, _ in expected] == [
        *("PUSH", "OPENING", "ITEM", "PUSH", "ITEM", "END"),
        *("ERROR", "OPENING", "ITEM", "ERROR", "VALUE"),
    ]
    for at in range(len(stream)):
        assert read([stream[:at], stream[at:]]) == expected
        for second in range(at, len(stream), 7):
            assert read([stream[:at], stream[at:second], stream[second:]]) == expected


@pytest.mark.parametrize(
    "error",
    [
        ClientError("no", code="X", data={"a": [1]}),
        ServerError("internal", code=5),
        UnknownCommand("unknown command 'x'"),
        ReplyError("odd"),
        UsageError("a is missing.", "missing"),
    ],
    ids=repr,
)
def test_an_error_is_the_one_that_the_server_has_raised(error):
    core = asked()
    core.feed(framing.error_reply(error, framed(1), b"@1 ", b"\n"))
    kind, got = core.reply()
    assert kind is Kind.ERROR
    assert str(got).rstrip(".") == str(error).rstrip(".")
    assert (got.code, got.data) == (error.code, error.data)
    assert type(got) is (UnknownCommand if type(error) is ReplyError else type(error))


def test_a_usage_error_has_its_usage():
    core = asked()
    core.feed(
        b'@1 - {"error":"CLIENT_ERROR","why":"value","text":"a must be int","usage":"ADD a:int"}\n'
    )
    _, error = core.reply()
    assert str(error) == "a must be int. Usage: ADD a:int"
    assert (error.problem, error.usage) == ("value", "ADD a:int")


def test_an_error_because_of_a_deadline_is_a_timeout():
    core = asked()
    core.feed(b'@1 - {"error":"SERVER_ERROR","why":"deadline","text":"not run"}\n')
    assert isinstance(core.reply()[1], CallTimeout)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"ERROR too many connections\r\n", UnknownCommand),
        (b"CLIENT_ERROR a line may hold 8 bytes at most\n", ClientError),
        (b"SERVER_ERROR stopping\n", ServerError),
    ],
)
def test_a_line_without_a_frame_is_a_refusal(line, kind):
    core = asked()
    core.feed(line)
    event, error = core.reply()
    assert (event, type(error)) == (Kind.REFUSAL, kind)
    assert str(error) == line.split(None, 1)[1].decode().strip()


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"@2 = 1\n", "a reply to another request came: '@2 = 1'"),
        (b"5\n", "the server does not send framed replies: '5'"),
        (
            b"HTTP/1.1 400 Bad Request\r\n",
            "the server does not send framed replies, but seems to speak HTTP: 'HTTP/1.1 400",
        ),
        (b"@1 = {\n", "a reply is not JSON: '{'"),
        (b"@1 = NaN\n", "a reply is not JSON: 'NaN'"),
        (b"@1 = \xff\n", "a reply is not JSON: '\\xff'"),
        (b"@1 $ 2\nabc\n", "a block of bytes does not end after its size"),
        (b"@1 - 5\n", "an error has no text: '5'"),
        (b"@1 ? 5\n", "a reply cannot be understood: '? 5'"),
        (b"@1 .\n", "a reply cannot be understood: '.'"),
        (b"@1 *\n*\n", "a reply cannot be understood: '*'"),
        (b"@1 = 1\n@1 = 2\n", "a reply to another request came: '@1 = 2'"),
    ],
)
def test_what_is_no_reply_is_a_protocol_error(stream, text):
    core = asked()
    with pytest.raises(ProtocolError) as error:
        whole(core, [stream])
    assert text in str(error.value)


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_replies_or_a_protocol_error(data, is_begun):
    for parts in ([data], [data[i : i + 1] for i in range(len(data))]):
        try:
            found = whole(asked(3), [b"@1 " * is_begun, *parts])
        except ProtocolError:
            continue
        assert all(kind in Kind for kind, _ in found)


def test_requests_are_numbered_and_say_how_long_is_waited():
    core = LineCore()
    assert core.request(b"add [2,3]", True) == b"@i=1,j add [2,3]\n"
    assert core.request(b"ADD 2 3", False, wait_ms=450) == b"@i=2,t=450 ADD 2 3\n"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    full = b"@i=3,j,t=5,r=a-1,p=" + trace.encode() + b" f []\n"
    assert core.request(b"f []", True, "a-1", trace, 5) == full
    assert not core.is_at_rest


@given(st.lists(JSON, max_size=4))
def test_arguments_are_json_on_one_line(values):
    text = arguments_text(values, {})
    assert json.loads(text) == values
    assert b"\n" not in text
    assert b"\r" not in text


def test_arguments_of_other_types_are_sent_as_the_server_reads_them():
    assert arguments_text([b"a\xff", {1: 2}], {}) == b'["Yf8=",{"1":2}]'
    assert arguments_text((), {"a": 1}) == b'{"a":1}'


@pytest.mark.parametrize(
    ("arguments", "named", "error"),
    [([1], {"b": 2}, TypeError), ([float("nan")], {}, ValueError), ([object()], {}, TypeError)],
)
def test_arguments_that_cannot_be_sent_are_refused(arguments, named, error):
    with pytest.raises(error):
        arguments_text(arguments, named)


def test_the_work_for_a_reply_is_linear_in_its_bytes():
    """Bytes that come one by one are joined a few times, not once each."""
    for stream in (b"@1 $ 20000\n" + b"x" * 20000 + b"\n", b'@1 = "' + b"x" * 20000 + b'"\n'):
        core, joined, found = asked(), 0, None
        for at in range(len(stream)):
            before = core._buffer
            core.feed(stream[at : at + 1])
            joined += len(core._buffer) if core._buffer is not before else 0
            found = core.reply()
        assert found is not None
        assert joined <= 3 * len(stream)
