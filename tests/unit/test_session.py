"""What is handed to a handler: the session, and what it may hand back."""

import json
from typing import Any

import pytest

import linepool
from linepool import App, Range, Reply, Rest, Session, Verb

PLAIN = [None, True, 5, 2.5, "text", [], [1, [None, "a"]], {}, {"a": {"b": [1]}}]


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_is_kept(value):
    session = Session()
    session["key"] = value

    assert session["key"] == value
    assert json.loads(json.dumps(session)) == {"key": value}


def assign(session: Session, value: Any) -> None:
    session["key"] = value


def update(session: Session, value: Any) -> None:
    session.update(key=value)


def update_from_a_dict(session: Session, value: Any) -> None:
    session.update({"key": value})


def update_from_pairs(session: Session, value: Any) -> None:
    session.update([("key", value)])


def set_default(session: Session, value: Any) -> None:
    session.setdefault("key", value)


def merge(session: Session, value: Any) -> None:
    session |= {"key": value}


@pytest.mark.parametrize(
    "put", [assign, update, update_from_a_dict, update_from_pairs, set_default, merge]
)
@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), "'key' is a object"),
        (b"bytes", "'key' is a bytes"),
        ((1, 2), "'key' is a tuple"),
        ({1}, "'key' is a set"),
        (1j, "'key' is a complex"),
        (Text("x"), "'key' is a Text"),
        ([1, [b"x"]], r"'key\[1\]\[0\]' is a bytes"),
        ({"a": {"b": {1}}}, "'key.a.b' is a set"),
        ({"a": {1: 2}}, "'key.a' has a key 1; keys must be str"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_plain_data_is_refused_with_its_place(put, value, where):
    session = Session()

    with pytest.raises(TypeError, match=f"session value {where}"):
        put(session, value)
    assert session == {}


@pytest.mark.parametrize("put", [assign, update, update_from_pairs, set_default, merge])
def test_plain_data_may_come_in_every_way_of_a_dict(put):
    session = Session()
    put(session, [1])

    assert session == {"key": [1]}
    assert type(session) is Session


def test_a_value_that_is_there_stays_at_setdefault():
    session = Session()
    session["key"] = 1

    assert session.setdefault("key", 2) == 1
    assert session.setdefault("other") is None
    assert session == {"key": 1, "other": None}


def test_a_key_must_be_text():
    session: Any = Session()

    with pytest.raises(TypeError, match="a session's keys are str, not int"):
        session[1] = 2


def test_a_session_lasts_as_long_as_its_connection():
    app = App()

    @app.handler
    def login(user: str, session: Session) -> str:
        session["user"] = user
        session.user = user
        return f"hello {user} from {session.peer}"

    @app.handler
    def whoami(session: Session) -> list[object]:
        return [session.get("user"), session.user, session.id, session.listener]

    assert app.ask(b"login ann\nwhoami\n") == (
        b"hello ann from ask\n" + b"ann\nann\nask\nask\nEND\n"
    )
    assert app.ask(b"whoami\n").splitlines()[0] != b"ann"


def test_a_value_that_is_refused_costs_one_reply():
    app = App()

    @app.handler
    def spoil(session: Session) -> None:
        session["key"] = object()

    @app.handler
    def size(session: Session) -> int:
        return len(session)

    reply = app.ask(b"spoil\nsize\n")

    assert reply.startswith(b"SERVER_ERROR internal error, id ")
    assert reply.endswith(b"\n0\n")


@pytest.mark.parametrize(
    ("bounds", "shown"),
    [
        (Range(1, 100), "1..100"),
        (Range(min=0), "0.."),
        (Range(max=0.5), "..0.5"),
        (Range(-1, 1), "-1..1"),
        (Range(0, 16_777_217), "0..16777217"),
        (Range(0.1234567, 1), "0.1234567..1"),
    ],
)
def test_a_range_shows_its_bounds_exactly(bounds, shown):
    assert str(bounds) == shown


def test_a_reply_says_nothing_but_ok_unless_it_is_told():
    assert Reply() == Reply(value=None, raw=None, close=False)


def test_verb_and_rest_are_text():
    assert Verb("ADD") == "ADD"
    assert Rest("a  b") == "a  b"


def test_a_body_names_its_size():
    assert linepool.body("size").size == "size"
