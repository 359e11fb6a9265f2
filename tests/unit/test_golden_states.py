"""What a connection takes along to another process, as each version of the code has written it.

``golden_states.json`` has, for each state, what the versions that are in use wrote, oldest first. To
change a format: add what is written from now on, have ``load`` read both, and release that it is read
before it is written, because old workers get connections from new ones and after a roll-back. An entry
leaves when its version is no longer read.
"""

import json
import socket
from pathlib import Path

import pytest

from linepool import Answers, App, Ask, Dialogue, JsonRpc, Line, Memcache, Resp, Session, body
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.ipc import channel
from linepool.ipc.messages import ConnectionState, Message, PassedConnection, Rejected
from linepool.ipc.waiting import Waiting, Why
from linepool.resources import Resources

GOLDEN: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("golden_states.json").read_text("ascii")
)


def put(key: str, size: int, data: bytes = body("size")) -> None: ...


def data(text: bytes = body()) -> None: ...


def get(key: str) -> None: ...


def served(protocol, *handlers) -> App:
    app = App(protocol=protocol)
    for handler in handlers:
        app.handler(handler)
    return app


def auth(mechanism: str, user: bytes, given: Answers) -> Ask:
    return Ask("334 more")


APPS = {
    "line": served(Line(), put),
    "memcache": served(Memcache(), get),
    "resp": served(Resp(password="open", transactions=True), get),
    "jsonrpc": served(JsonRpc(), get),
    "dialogue": served(Dialogue.smtp(), data),
}
WAITING = Waiting(
    [b"jobs", b""],
    *(2**40, 2.5, 9.5, 3, 2**50, 7, Why.EXPIRED, b"jobs", b"TAKE", b"kept", b"none\r\n"),
)
ASKING = served(Dialogue.smtp(), auth)
SENT = {
    "line": b"\xff\xfb\x18\r\nPUT k 10\r\nhalf",
    "memcache": b"set k 0 0 %d\r\nhalf" % 10**9,
    "resp": b"HELLO 3 AUTH default open SETNAME me\r\nMULTI\r\nGET a\r\n*2\r\n$3\r\nGET\r\n$10\r\nhalf",
    "jsonrpc": b'{"jsonrpc": "2.0", "method": "get", "id": 1}\r\n{"jsonrpc": "2.0", "method',
    "dialogue": b"NO\r\nDATA\r\none\r\n..two\r\nhalf",
}


def connected(name: str) -> Conversation:
    return Conversation(APPS[name].freeze(), Session("1-2", "peer", "here"), Resources())


def session() -> Session:
    one = Session("12-3", "127.0.0.1:4000", "unix:/a\udcff")
    one.user = "me"
    one.update({"number": 1.5, "deep": [None, True, {"é": "\ud800"}]})
    return one


def conversation(name: str) -> bytes:
    one = connected(name)
    one.feed(SENT[name])
    list(answers(one))
    return one.dump()


def passed(*waiting: Waiting) -> bytes:
    """Return the bytes of the message that passes a connection."""
    ours, theirs = channel.pair()
    data = channel.join_state(b"s", b"p")
    flags = channel.PARTIAL | channel.SERVED
    state = ConnectionState(flags, 12.5, 3.25, data, 2**63, 7, [*waiting])
    with ours, theirs:
        assert channel.send(ours, PassedConnection(state, ours.fileno(), 2**40))
        return theirs.recv(1000)


def todays() -> dict[str, bytes]:
    """Return the states as they are written today."""
    return {
        "session": session().dump(),
        "empty session": Session("12-3", "unix", "unix:@a").dump(),
        "not admitted": first_bytes(),
        "passed connection": passed(),
        "passed with a request that waits": passed(WAITING),
        "open question": asked(),
        **{name: conversation(name) for name in APPS},
    }


def first_bytes() -> bytes:
    one = connected("line")
    one.feed(b"GE")
    return one.dump()


def asked() -> bytes:
    one = Conversation(ASKING.freeze(), Session("1-2", "peer", "here"), Resources())
    one.feed(b"NO\r\nAUTH LOGIN \xe9\r\nfirst\r\nhalf")
    list(answers(one))
    return one.dump()


def golden(name: str) -> list[bytes]:
    return [text.encode("latin-1") for text in GOLDEN[name]]


def test_what_is_written_is_the_last_golden_state():
    assert todays() == {name: golden(name)[-1] for name in GOLDEN}


@pytest.mark.parametrize("name", APPS)
def test_golden_states_of_a_protocol_are_read_by_it_alone(name):
    for blob in golden(name):
        fresh = connected(name)
        fresh.load(blob)
        assert fresh.dump() == golden(name)[-1]
        for other in APPS.keys() - {name}:
            with pytest.raises(
                ValueError, match=f"version '{blob[1]:02x}' of the state of .* unknown"
            ):
                connected(other).load(blob)


def test_a_protocol_s_state_that_is_cut_off_is_refused():
    for name in "line", "memcache", "jsonrpc":
        with pytest.raises(ValueError, match=r"the state of .* is cut off after 2 bytes"):
            connected(name).load(golden(name)[-1][:3])
        with pytest.raises(ValueError, match=r"version '' of the state of .* is unknown"):
            connected(name).load(golden(name)[-1][:1])


def test_golden_first_bytes_are_read():
    for blob in golden("not admitted"):
        fresh = connected("line")
        fresh.load(blob)
        assert fresh.dump() == golden("not admitted")[-1]


def test_golden_questions_are_read():
    for blob in golden("open question"):
        fresh = Conversation(ASKING.freeze(), Session(), Resources())
        fresh.load(blob)
        assert fresh.dump() == golden("open question")[-1]


def test_golden_sessions_are_read():
    for blob in golden("session"):
        loaded, made = Session.load(blob), session()
        assert loaded == made
        for name in Session.__slots__:
            assert name == "_at_most" or getattr(loaded, name) == getattr(made, name)
    for blob in golden("empty session"):
        assert Session.load(blob).listener == "unix:@a"


@pytest.mark.parametrize("blob", [b"2\0a\0b\0c\0", b"12-3\0a\0b\0", b"", b"\xff"])
def test_a_session_of_an_unknown_version_is_refused(blob):
    with pytest.raises(ValueError, match=r"version '.*' of a session is unknown; .* '1'|decode"):
        Session.load(blob)


def received(blob: bytes) -> Message:
    """Return a message, whose descriptor is closed."""
    ours, theirs = channel.pair()
    with ours, theirs:
        channel._send_with(ours, [blob], [ours.fileno()])
        message = channel.receive(theirs)
    assert message is not None
    channel.close_descriptor(message)
    return message


def test_golden_messages_that_pass_a_connection_are_read():
    for blob in golden("passed connection"):
        message = received(blob)
        assert isinstance(message, PassedConnection)
        assert message.number == 2**40
        state = message.state
        assert state.flags == channel.PARTIAL | channel.SERVED
        assert (state.deadline, state.accepted_at) == (12.5, 3.25)
        assert (state.cookie, state.origin) == (2**63, 7)
        assert channel.split_state(state.data) == (b"s", b"p")


def test_messages_and_states_of_an_unknown_version_are_refused():
    blob = golden("passed connection")[-1]

    message = received(blob[:1] + b"\x09" + blob[2:])

    assert isinstance(message, Rejected)
    assert (
        message.why == "version '9' of a passed connection is unknown; this code reads version '1'"
    )
    with pytest.raises(ValueError, match="version '9' of a connection's state is unknown"):
        channel.split_state(b"\x09" + bytes(20))


def test_a_state_that_is_too_large_is_rejected_with_its_connection():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        state = ConnectionState(0, 0.0, 0.0, bytes(100_000))
        assert channel.send(ours, PassedConnection(state, ours.fileno(), 7))

        message = channel.receive(theirs, 99_999)

        assert isinstance(message, Rejected)
        assert message.number == 7
        with socket.socket(fileno=message.descriptor) as sock:
            assert sock.type == socket.SOCK_SEQPACKET
