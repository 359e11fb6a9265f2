"""Sessions, and the other values that handlers receive and return."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import linepool
from linepool import App, Range, Reply, Rest, Session, Verb
from linepool.session import MOST_SESSION_BYTES

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
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_value_that_is_not_plain_data_is_refused_with_its_path(put, value, where):
    session = Session()

    with pytest.raises(TypeError, match=f"session value {where}"):
        put(session, value)
    assert session == {}


@pytest.mark.parametrize("put", [assign, update, update_from_pairs, set_default, merge])
def test_plain_data_may_be_set_through_every_dict_method(put):
    session = Session()
    put(session, [1])

    assert session == {"key": [1]}
    assert type(session) is Session


def test_setdefault_keeps_an_existing_value():
    session = Session()
    session["key"] = 1

    assert session.setdefault("key", 2) == 1
    assert session.setdefault("other") is None
    assert session == {"key": 1, "other": None}


def test_a_key_must_be_a_str():
    session: Any = Session()

    with pytest.raises(TypeError, match="a session's keys are str, not int"):
        session[1] = 2


# -- moving to another process


@pytest.mark.parametrize("value", [*PLAIN, "\0\ud800é", -(2**200), float("inf")], ids=repr)
def test_a_dumped_session_is_loaded_unchanged(value):
    session = Session("4711-1", "127.0.0.1:41094", "[::1]:7000")
    session["key"] = value
    session.user = "ann"

    loaded = Session.load(session.dump())

    assert loaded == session
    assert type(loaded["key"]) is type(value)
    assert [loaded.id, loaded.peer, loaded.listener, loaded.user] == [
        "4711-1",
        "127.0.0.1:41094",
        "[::1]:7000",
        "ann",
    ]


@pytest.mark.parametrize("name", ["unix:/tmp/a b", "unix:/tmp/\udcff", "unix:/tmp/\n", "unix:é"])
def test_a_session_keeps_the_name_of_any_listener(name):
    session = Session("1-1", "unix", name)

    assert Session.load(session.dump()).listener == name


def test_a_loaded_session_checks_assigned_values():
    session = Session.load(Session().dump())

    with pytest.raises(TypeError, match="session value 'key' is a object"):
        session["key"] = object()


def cycle() -> list[Any]:
    """Return a list that contains itself."""
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    "item",
    [object(), b"bytes", (1, 2), {1: 2}, Text("x"), cycle()],
    ids=lambda item: repr(item)[:20],
)
def test_a_value_mutated_into_something_else_than_plain_data_cannot_be_dumped(item):
    session = Session()
    session["key"] = []
    session["key"].append(item)

    with pytest.raises((TypeError, RecursionError)):
        session.dump()


def test_a_user_that_json_would_change_cannot_be_dumped():
    session = Session()
    session.user = ("ann", 1)  # type: ignore[assignment]

    with pytest.raises(TypeError, match="session value 'user' is a tuple"):
        session.dump()


def test_a_session_has_no_other_attributes():
    with pytest.raises(AttributeError, match="cart"):
        Session().cart = []  # type: ignore[attr-defined]


def test_a_value_mutated_in_place_may_exceed_the_size_limit():
    session = Session()
    session["key"] = []
    session["key"].extend(range(10_000))

    assert Session.load(session.dump()) == session


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("x" * MOST_SESSION_BYTES, "with 'key' the session would hold 8215 bytes of JSON"),
        (10**5000, "session value 'key' cannot be written as JSON: "),
        (cycle(), "session value 'key' "),
    ],
    ids=["large", "number", "cycle"],
)
def test_a_value_that_cannot_be_serialised_is_refused_when_it_is_assigned(value, why):
    session = Session()
    session["other"] = 1

    with pytest.raises(ValueError, match=why):
        session["key"] = value
    assert session == {"other": 1}


def test_the_size_limit_applies_to_all_values_together():
    session = Session()
    for number in range(4):
        session[str(number)] = "x" * 2000

    with pytest.raises(ValueError, match="with '4' the session would hold 10045 bytes of JSON"):
        session["4"] = "x" * 2000
    session["3"] = ""  # smaller values are accepted
    session["4"] = "x" * 2000


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=50),
    st.integers(0, 4000).map("x".__mul__),
    st.integers(0, 600).map("\U0001f600".__mul__),
    st.lists(st.text(max_size=50), max_size=3),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), SCALARS), max_size=20))
def test_the_size_limit_is_exact_in_any_order_of_assignments(assignments):
    session, accepted = Session(), dict[str, Any]()
    for key, value in assignments:
        would_be = accepted | {key: value}
        if len(json.dumps(would_be)) <= MOST_SESSION_BYTES:
            session[key] = value
            accepted = would_be
        else:
            with pytest.raises(ValueError, match="bytes of JSON"):
                session[key] = value
    assert list(session) == list(accepted)


def test_a_session_that_has_moved_knows_its_size():
    session = Session()
    session["key"] = "x" * (MOST_SESSION_BYTES - 100)
    moved = Session.load(session.dump())

    with pytest.raises(ValueError, match="bytes of JSON"):
        moved["more"] = "x" * 100


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


def test_a_refused_value_affects_one_request_only():
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


def test_a_reply_is_ok_by_default():
    assert Reply() == Reply(value=None, raw=None, close=False)


def test_verb_and_rest_are_strings():
    assert Verb("ADD") == "ADD"
    assert Rest("a  b") == "a  b"


def test_a_body_names_its_size():
    assert linepool.body("size").size == "size"


def test_the_credentials_of_a_unix_client_move_with_its_session():
    session = Session("1-2", "unix", "unix:@x", (12, 1000, 100))
    session["cart"] = ["book"]
    moved = Session.load(session.dump())

    assert (moved.pid, moved.uid, moved.gid, moved.peer) == (12, 1000, 100, "unix")
    assert moved == session
    tcp = Session.load(Session("1-2", "127.0.0.1:5", "127.0.0.1:7000").dump())
    assert (tcp.pid, tcp.uid, tcp.gid) == (None, None, None)


def test_credentials_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="invalid literal"):
        Session.load(b"1\x001-2\x00unix a b c\x00unix:@x\x00")
