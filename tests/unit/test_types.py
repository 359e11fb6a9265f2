"""Types: the same value as a word, in a class, in JSON-RPC and as a reply, or refused at load."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import itertools
import json
import math
import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    Never,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import annotated_types as at
import attrs
import cattrs
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepool import App, Argument, JsonRpc, Range, Resp, Secret, SetupError
from linepool.handlers.mistakes import Mistakes
from linepool.handlers.structured import DEFAULT
from linepool.values.scalars import scalar

T = TypeVar("T")


def count() -> Any:
    numbers = itertools.count()
    return lambda _: next(numbers)


class Colour(enum.Enum):
    RED = "r"
    BLUE = 7


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Email(str):
    pass


@attrs.frozen
class Point:
    x: int
    y: int = 0


@attrs.define
class Private:
    _x: int
    named: str = attrs.field(default="", alias="as_")
    even: int = attrs.field(default=0, converter=lambda n: n - n % 2)
    total: int = attrs.field(init=False, default=7)


@dataclasses.dataclass
class Pair(Generic[T]):
    left: T
    right: list[T]


@attrs.frozen
class Box(Generic[T]):
    of: T


BOX: Any = Box  # with types that are known when the test runs
DICT: Any = dict
LIST: Any = list


@attrs.frozen
class Tree:
    name: str
    below: list[Tree] = attrs.field(factory=list)
    beside: Optional[Tree] = None  # noqa: UP045


@dataclasses.dataclass
class Node:
    value: int
    next: Node | None = None


class Movie(TypedDict):
    title: str
    year: NotRequired[int]
    sequel: NotRequired[Movie]


class Place(NamedTuple):
    lat: float
    lon: float
    name: str = ""


@attrs.frozen
class Card:
    number: str
    kind: Literal["card"] = "card"


@dataclasses.dataclass(frozen=True)
class Transfer:
    iban: str
    kind: Literal["transfer", "wire"] = "transfer"


class Cash(TypedDict):
    kind: Literal["cash"]


class Model(pydantic.BaseModel):
    when: date
    size: int = pydantic.Field(1, ge=0)


class Record(msgspec.Struct):
    x: int
    path: Path | None = None


Id = NewType("Id", int)


class Outer:
    @attrs.frozen
    class Inner:
        at: time


ID = UUID("12345678-1234-5678-1234-567812345678")
WORDS: list[tuple[Any, str, Any, Any]] = [  # type, word, value, JSON
    (str, "tea", "tea", "tea"),
    (int, "42", 42, 42),
    (float, "2.5", 2.5, 2.5),
    (bool, "true", True, True),
    (bytes, "tea", b"tea", "dGVh"),
    (Decimal, "12.50", Decimal("12.50"), "12.50"),
    (Fraction, "1/3", Fraction(1, 3), "1/3"),
    (UUID, str(ID), ID, str(ID)),
    (datetime, "2026-01-31T12:00:00+00:00", datetime(2026, 1, 31, 12, tzinfo=UTC), ...),
    (date, "2026-01-31", date(2026, 1, 31), ...),
    (time, "12:30:00", time(12, 30), ...),
    (timedelta, "PT1H30M", timedelta(hours=1.5), ...),
    (Path, "/etc/hosts", Path("/etc/hosts"), ...),
    (PurePosixPath, "a/b", PurePosixPath("a/b"), ...),
    (ipaddress.IPv4Address, "192.0.2.1", ipaddress.ip_address("192.0.2.1"), ...),
    (ipaddress.IPv6Address, "2001:db8::1", ipaddress.ip_address("2001:db8::1"), ...),
    (ipaddress.IPv4Network, "192.0.2.0/24", ipaddress.ip_network("192.0.2.0/24"), ...),
    (ipaddress.IPv6Network, "2001:db8::/32", ipaddress.ip_network("2001:db8::/32"), ...),
    (ipaddress.IPv4Interface, "192.0.2.1/24", ipaddress.ip_interface("192.0.2.1/24"), ...),
    (Colour, "r", Colour.RED, "r"),
    (Level, "1", Level.LOW, 1),
    (Mode, "fast", Mode.FAST, "fast"),
    (Literal["on", 3], "on", "on", "on"),
    (Literal[Colour.RED], "r", Colour.RED, "r"),
    (np.float64, "2.5", np.float64(2.5), 2.5),
    (np.int8, "7", np.int8(7), 7),
    (np.bool_, "true", np.bool_(True), True),
    (Email, "a@b", Email("a@b"), "a@b"),
    (Id, "7", 7, 7),
    (Annotated[int, at.Ge(0)], "7", 7, 7),
]
COMPOSED: list[tuple[Any, Any, Any]] = [  # type, value, JSON
    (Point, Point(1), {"x": 1, "y": 0}),
    (Annotated[Private, Argument], Private(3, "a", 5), {"x": 3, "as_": "a", "even": 4, "total": 7}),
    (Pair[Decimal], Pair(Decimal("1.5"), [Decimal(2)]), {"left": "1.5", "right": ["2"]}),
    (Box[Box[date]], Box(Box(date(2026, 1, 31))), {"of": {"of": "2026-01-31"}}),
    (
        Tree,
        Tree("a", [Tree("b")], Tree("c")),
        {
            "name": "a",
            "below": [{"name": "b", "below": [], "beside": None}],
            "beside": {"name": "c", "below": [], "beside": None},
        },
    ),
    (Node, Node(1, Node(2)), {"value": 1, "next": {"value": 2, "next": None}}),
    (Movie, {"title": "x", "sequel": {"title": "y", "year": 2}}, ...),
    (Place, Place(1.5, 2), [1.5, 2.0, ""]),
    (Outer.Inner, Outer.Inner(time(1)), {"at": "01:00:00"}),
    (list[Colour], [Colour.RED, Colour.BLUE], ["r", 7]),
    (tuple[int, Decimal], (1, Decimal(2)), [1, "2"]),
    (tuple[date, ...], (date(2026, 1, 31),), ["2026-01-31"]),
    (set[int], {1}, [1]),
    (frozenset[UUID], frozenset({ID}), [str(ID)]),
    (Sequence[bytes], [b"tea"], ["dGVh"]),
    (deque[int], deque([1]), [1]),
    (dict[int, float], {7: 1.5}, {"7": 1.5}),
    (dict[date, list[Point]], {date(2026, 1, 31): [Point(1)]}, {"2026-01-31": [{"x": 1, "y": 0}]}),
    (Mapping[Colour, bool], {Colour.BLUE: True}, {"7": True}),
    (list[Card | Transfer | Cash], [Transfer("x", "wire")], [{"iban": "x", "kind": "wire"}]),
    (list[Card | Transfer | Cash | None], [{"kind": "cash"}, None], ...),
    (list[Point | list[Point]], [Point(1), [Point(2)]], [{"x": 1, "y": 0}, [{"x": 2, "y": 0}]]),
    (list[UUID | str | None], [ID, "x", None], [str(ID), "x", None]),
    (
        list[date | datetime],
        [date(2026, 1, 31), datetime(2026, 1, 31)],
        ["2026-01-31", "2026-01-31T00:00:00"],
    ),
    (list[Annotated[Decimal, at.Gt(0)]], [Decimal(1)], ["1"]),
    (list[Any], [1, "x", None], ...),
    (Model, Model(when=date(2026, 1, 31), size=1), {"when": "2026-01-31", "size": 1}),
    (list[Record], [Record(1, Path("a"))], [{"x": 1, "path": "a"}]),
    (
        Box[Model],
        Box(Model(when=date(2026, 1, 31), size=1)),
        {"of": {"when": "2026-01-31", "size": 1}},
    ),
]


def handler(hint: Any) -> tuple[Any, list[Any]]:
    """Return a function with a parameter x of a type that returns it, and the list of its values."""
    seen: list[Any] = []

    def take(x: Any) -> Any:
        seen.append(x)
        return x

    take.__annotations__ = {"x": hint}
    return take, seen


def rpc(hint: Any, sent: Any) -> tuple[Any, list[Any]]:
    """Return the answer of JSON-RPC to a call with one argument, and the values that the handler got."""
    take, seen = handler(hint)
    app = App(protocol=JsonRpc())
    app.handler("take")(take)
    message = {"jsonrpc": "2.0", "id": 1, "method": "take", "params": [sent]}
    return json.loads(app.ask(json.dumps(message).encode() + b"\n")), seen


def line(hint: Any, word: str) -> tuple[str, list[Any]]:
    """Return the reply of the line protocol to a word, and the values that the handler got."""
    take, seen = handler(hint)
    app = App()
    app.handler("take")(take)
    return app.ask(f"take {word}\n".encode()).decode().partition(" Usage: ")[0].rstrip("\n"), seen


def errors(hint: Any, sent: Any) -> str:
    """Return what JSON-RPC and Line say of a wrong value, which is the same."""
    said: str = rpc(hint, sent)[0]["error"]["message"]
    said = said.removeprefix("Invalid params: ").partition(" Usage: ")[0]
    if isinstance(sent, dict | list):
        assert line(hint, json.dumps(sent))[0] == f"CLIENT_ERROR {said}"
    return said


# -- the table: every type in every place


@pytest.mark.parametrize(("hint", "word", "value", "form"), WORDS, ids=count())
def test_a_scalar_is_taken_and_sent_in_every_place(hint, word, value, form):
    form = word if form is ... else form
    (text, words), (answer, values) = line(hint, word), rpc(hint, form)
    assert words == values == [value]
    assert type(words[0]) is type(values[0]) is type(value)
    assert text == word
    assert answer["result"] == form
    in_class, boxes = rpc(BOX[hint], {"of": form})
    assert boxes == [Box(value)]
    assert in_class["result"] == {"of": form}
    keyed, dicts = rpc(DICT[hint, int], {word: 1})
    assert dicts == [{value: 1}]
    assert [*keyed["result"]] == [str(form) if hint is not np.bool_ and hint is not bool else word]
    take, seen = handler(hint)
    app = App(protocol=Resp())
    app.handler("take")(take)
    assert word.encode() in app.ask(f"take {word}\r\n".encode()) or isinstance(
        value, bool | np.bool_
    )
    assert seen == [value]


@pytest.mark.parametrize(("hint", "value", "form"), COMPOSED, ids=count())
def test_a_composed_type_is_taken_and_sent_in_every_place(hint, value, form):
    form = value if form is ... else form
    sent = (
        {key: one for key, one in form.items() if key != "total"}
        if isinstance(form, dict)
        else form
    )
    answer, values = rpc(hint, sent)
    assert values == [value]
    assert type(values[0]) is type(value)
    assert answer["result"] == form
    answer, values = rpc(BOX[hint], {"of": sent})
    assert values == [Box(value)]
    assert answer["result"] == {"of": form}
    text, values = line(hint, json.dumps(sent))
    assert values == [value]
    assert not text.startswith(("CLIENT_ERROR", "SERVER_ERROR"))
    records, _ = line(Annotated[hint, "x"], json.dumps(sent))
    assert records == text
    app = App(protocol=Resp())
    take, seen = handler(hint)
    app.handler("take")(take)
    packed = json.dumps(sent).encode()
    reply = app.ask(b"*2\r\n$4\r\ntake\r\n$%d\r\n%b\r\n" % (len(packed), packed))
    assert not reply.startswith(b"-")
    assert seen == [value]


@pytest.mark.parametrize(
    ("hint", "why"),
    [
        (sqlite3.Connection, "unsupported type Connection"),
        (Box[sqlite3.Connection], "unsupported type Box[Connection]: field of (Connection)"),
        (dict[Point, int], "unsupported type of keys: Point"),
        (Box[Annotated[int, at.Predicate(str.islower)]], "field of: the constraint Predicate"),
        (Annotated[int, at.Timezone(None)], "the constraint Timezone(tz=None) is not supported"),
        (Annotated[datetime, msgspec.Meta(tz=True)], "is not supported"),
        (Annotated[str, at.Ge(1)], "ge=1 cannot bound str"),
        (Annotated[int, at.MinLen(1)], "min_length=1 cannot bound int"),
        (Annotated[int, pydantic.Field(pattern="x")], "pattern='x' cannot bound int"),
        (Annotated[str, pydantic.StringConstraints(pattern="[")], "is not a regular expression"),
        (Annotated[list[int], at.MultipleOf(2)], "multiple_of=2 cannot bound list[int]"),
        (complex, "unsupported type complex"),
        (np.complex128, "unsupported type complex128"),
        (np.datetime64, "unsupported type datetime64"),
        (type, "unsupported type type"),
        (Never, "unsupported type Never"),
        (5, "unsupported type 5"),
        ([int], "unsupported type [<class 'int'>]"),
        (Annotated[int, Range(5, 1)], "no number is in Range(5, 1)"),
        (Annotated[float, Range(0, math.nan)], "no number is in Range(0, nan)"),
    ],
    ids=count(),
)
def test_what_cannot_be_taken_is_refused_when_the_app_is_loaded(hint, why):
    for protocol in (None, JsonRpc(), Resp()):
        app = App(protocol=protocol)
        take, _ = handler(hint)
        app.handler(take)
        with pytest.raises(SetupError) as refusal:
            app.freeze()
        assert "parameter x: " in str(refusal.value)
        assert why in str(refusal.value)


class Account:
    pass


@attrs.frozen
class Store:
    path: str

    def read(self) -> str:
        return self.path


@dataclasses.dataclass
class Made:
    size: int
    twice: int = dataclasses.field(init=False, default=0)


@attrs.frozen
class Data:
    n: int

    @property
    def twice(self) -> int:
        return 2 * self.n

    @classmethod
    def zero(cls) -> Data:
        return cls(0)

    @staticmethod
    def name() -> str:
        return "data"

    def _hidden(self) -> int:
        return self.n


@pytest.mark.parametrize("kind", [Account, Store, Private, Made, Store | None])
def test_a_class_that_is_not_plain_data_is_not_an_argument_unless_it_says_so(kind):
    for protocol in (None, JsonRpc()):
        app = App(protocol=protocol)
        take, _ = handler(kind)
        app.handler(take)
        with pytest.raises(
            SetupError, match=r"parameter x: nothing provides \w+; register a resource"
        ):
            app.freeze()


@pytest.mark.parametrize("kind", [Annotated[Store, Argument], list[Store], Data])
def test_plain_data_and_what_is_said_to_be_an_argument_is_one(kind):
    app = App()
    take, _ = handler(kind)
    app.handler(take)
    app.freeze()


# -- mistakes


@attrs.frozen
class Item:
    n: int
    tags: dict[str, int] = attrs.field(factory=dict)


@attrs.frozen
class Payment:
    user: str
    amount: Annotated[Decimal, at.Gt(0)]
    items: list[Item] = attrs.field(factory=list)
    pin: Secret = attrs.field(default=Secret(""))
    note: Annotated[str | None, at.MaxLen(3)] = None

    def __attrs_post_init__(self) -> None:
        if self.user == "nobody":
            raise ValueError("nobody\n pays")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"user": "a", "amount": "x"}, ".amount must be Decimal such as 12.50, not 'x'."),
        ({"user": "a", "amount": 0}, ".amount must be Decimal > 0, not 0."),
        ({"user": "a", "amount": [1]}, ".amount must be Decimal such as 12.50, not a list."),
        (
            {"usr": "a", "amount": 1, "items": [{"n": 1}, {"n": True, "m": 1}]},
            ".user is missing; x.items[1].n must be int, not true; x.items[1].m is unknown; the fields are"
            " n, tags; x.usr is unknown; did you mean user?.",
        ),
        (
            {"user": "a", "amount": 1, "items": [{"n": 1, "tags": {"a": "b", "x y": None}}, 5]},
            ".items[0].tags.a must be int, not 'b'; x.items[0].tags['x y'] must be int, not null;"
            " x.items[1] must be a JSON object, not 5.",
        ),
        ({"user": "a", "amount": 1, "pin": 1234}, ".pin must be str."),
        (
            {"user": "a", "amount": 1, "note": "long"},
            ".note must be str|None of at most 3 characters",
        ),
        ({"user": "nobody", "amount": 1}, " is not valid."),  # it has a secret
        ([], " must be a JSON object, not a list."),
    ],
)
def test_mistakes_are_named_with_their_paths(sent, said):
    assert errors(Payment, sent).startswith(f"x{said}")


@pytest.mark.parametrize(
    ("hint", "sent", "said"),
    [
        (list[int], "12", "x must be a list, not '12'."),
        (list[int], {"a": 1}, "x must be a list, not an object."),
        (tuple[int, str], [1], "x must be a list of 2, not of 1."),
        (Place, [1], "x must be a list of 2 to 3, not of 1."),
        (Place, [1, "x"], "x[1] must be float, not 'x'."),
        (dict[int, int], {"a": 1}, "x must have keys of int, not 'a'."),
        (
            Movie,
            {"title": 1, "year": None},
            "x.title must be str, not 1; x.year must be int, not null.",
        ),
        (Movie, {"yaer": 1}, "x.title is missing; x.yaer is unknown; did you mean year?."),
        (Card | Transfer, {"kind": "x"}, "x.kind must be card or transfer or wire, not 'x'."),
        (Card | Transfer, {}, "x.kind is missing."),
        (Card | Transfer, {"kind": "wire"}, "x.iban is missing."),
        (Point | list[int], {"x": "a"}, "x.x must be int, not 'a'."),
        (Point | list[int], 5, "x must be Point or list[int], not 5."),
        (Point | None, 5, "x must be a JSON object or null, not 5."),
        (
            Model,
            {"size": -1},
            "x.when is missing; x.size must be greater than or equal to 0, not -1.",
        ),
        (list[Model], [{"when": "x"}], "x[0].when must be a valid date or datetime"),
        (Record, {"x": "a"}, "x.x must be int, not str."),
        (list[Record], [{}], "x[0].x is missing."),
        (list[Record], [{"x": 1, "path": 5}], "x[0].path"),
    ],
    ids=count(),
)
def test_mistakes_in_other_types_are_named_likewise(hint, sent, said):
    assert errors(hint, sent).startswith(said)


def test_at_most_ten_mistakes_are_named():
    said = errors(list[int], ["x"] * 1000)
    assert said.count("must be int") == 10
    assert said.endswith("; ...")


def test_a_value_that_is_nested_too_deeply_is_refused():
    deep: Any = {"name": "a"}
    for _ in range(100):
        deep = {"name": "a", "below": [deep]}
    answer, seen = rpc(Tree, deep)
    assert "error" in answer or seen


# -- constraints


@pytest.mark.parametrize(
    ("hint", "good", "bad", "said"),
    [
        (Annotated[int, at.Interval(gt=0, le=9)], 9, 10, "int <= 9"),
        (Annotated[int, at.MultipleOf(5)], 10, 11, "int and a multiple of 5"),
        (Annotated[float, at.MultipleOf(0.1)], 0.3, 0.35, "float and a multiple of 0.1"),
        (Annotated[str, at.Len(1, 3)], "abc", "abcd", "str of at most 3 characters"),
        (
            Annotated[str, msgspec.Meta(pattern="^a+$", title="t")],
            "aa",
            "b",
            "str that matches ^a+$",
        ),
        (Annotated[int, pydantic.Field(ge=1, description="d")], 1, 0, "int >= 1"),
        (
            Annotated[date, at.Ge(date(2026, 1, 1))],
            "2026-01-01",
            "2025-12-31",
            "date >= 2026-01-01",
        ),
        (Annotated[timedelta, at.Le(timedelta(1))], "P1D", "P2D", "timedelta <= P1D"),
        (Annotated[Decimal, Range(0, 1)], "0.5", "NaN", "Decimal in 0..1"),
        (Annotated[Id, at.Lt(3)], 2, 3, "int < 3"),
        (Annotated[int, at.doc("x"), "a note"], 1, "x", "int"),
    ],
    ids=count(),
)
def test_a_constraint_holds_in_every_place(hint, good, bad, said):
    assert "result" in rpc(hint, good)[0]
    assert "result" in rpc(BOX[hint], {"of": good})[0]
    assert line(hint, str(good))[1]
    assert line(hint, str(bad))[0].startswith(f"CLIENT_ERROR x must be {said}, not '")
    assert errors(hint, bad).startswith(f"x must be {said}, not ")
    assert errors(BOX[hint], {"of": bad}).startswith(f"x.of must be {said}, not ")
    assert errors(LIST[hint], [bad]).startswith(f"x[0] must be {said}, not ")


def test_a_list_may_be_bounded():
    hint = Annotated[list[Annotated[int, at.Ge(0)]], at.MaxLen(2)]
    assert errors(hint, [1, -1]) == "x[1] must be int >= 0, not -1."
    assert errors(hint, [1, 2, 3]) == "x must be list[int] of at most 2 items, not a list."


# -- the user's own


class Money:
    def __init__(self, text: str) -> None:
        amount, self.unit = text.split(" ")
        self.amount = Decimal(amount)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and (self.amount, self.unit) == (other.amount, other.unit)

    __hash__ = None  # type: ignore[assignment]


def test_hooks_of_the_apps_own_converter_come_first():
    own = cattrs.Converter()
    own.register_structure_hook(Money, lambda text, _: Money(text))
    own.register_structure_hook(Decimal, lambda text, _: Decimal(text) * 100)
    own.register_structure_hook(Email, lambda text, _: Email(text.upper()))
    seen: list[Any] = []
    for protocol in (None, JsonRpc()):
        app = App(protocol=protocol, converter=own)

        @app.handler("take")
        def take(box: Box[tuple[Money, Decimal, Email, date]]) -> None:
            seen.append(box.of)

        form = {"of": ["5 EUR", "1.5", "a", "2026-01-31"]}
        if protocol is None:
            assert app.ask(b"take " + json.dumps(form).encode() + b"\n") == b"OK\n"
        else:
            app.ask(
                json.dumps({"jsonrpc": "2.0", "id": 1, "method": "take", "params": [form]}).encode()
                + b"\n"
            )
    assert seen == [(Money("5 EUR"), Decimal(150), "A", date(2026, 1, 31))] * 2
    with pytest.raises(cattrs.StructureHandlerNotFoundError):
        own.structure({}, type)  # it has not changed


def test_a_word_may_be_of_a_type_of_the_apps_own_converter():
    own = cattrs.Converter()
    own.register_structure_hook(Money, lambda text, _: Money(text))
    app = App(converter=own)
    seen: list[Any] = []

    @app.handler
    def pay(amount: Money, to: Money) -> None:
        seen.extend((amount, to))

    assert app.ask(b'pay "5 EUR" "1 USD"\n') == b"OK\n"
    assert seen == [Money("5 EUR"), Money("1 USD")]
    assert app.ask(b"pay 5 6\n").startswith(b"CLIENT_ERROR amount is not valid: not enough values")


# -- properties


@settings(max_examples=30, deadline=None)
@given(st.data())
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (int, st.integers()),
        (float, st.floats(allow_nan=False, allow_infinity=False)),
        (bool, st.booleans()),
        (str, st.text()),
        (bytes, st.binary()),
        (Decimal, st.decimals(allow_nan=False)),
        (Fraction, st.fractions()),
        (UUID, st.uuids()),
        (datetime, st.datetimes(timezones=st.just(UTC) | st.none())),
        (date, st.dates()),
        (time, st.times()),
        (timedelta, st.timedeltas()),
        (PurePosixPath, st.text("ab/.é ", min_size=1).map(PurePosixPath)),
        (ipaddress.IPv4Address, st.ip_addresses(v=4)),
        (ipaddress.IPv6Address, st.ip_addresses(v=6)),
        (Colour, st.sampled_from(Colour)),
        (Level, st.sampled_from(Level)),
        (Literal[1, "x", True, "é"], st.sampled_from([1, "é", True])),
        (np.float64, st.floats(allow_nan=False, allow_infinity=False).map(np.float64)),
        (np.int16, st.integers(-(2**15), 2**15 - 1).map(np.int16)),
    ],
    ids=count(),
)
def test_a_value_is_read_back_as_it_was_shown(kind, values, data):
    value = data.draw(values)
    row = scalar(kind)
    assert row is not None
    shown = row.show(value)
    assert row.value(json.loads(json.dumps(shown))) == value
    if not isinstance(value, bytes | bool):
        assert row.word(str(shown).encode()) == value or kind is float


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda one: st.lists(one) | st.dictionaries(st.text(), one),
        max_leaves=10,
    )
)
def test_no_value_leads_to_an_error_that_is_not_a_clients(value):
    for hint in (
        Payment,
        Movie,
        list[Card | Transfer],
        dict[int, list[Tree]],
        Place,
        Model,
        Record,
    ):
        try:
            DEFAULT.conversion(hint)(value)
        except Mistakes as mistakes:
            assert mistakes.described("x")  # noqa: PT017 - most values are wrong


def test_a_deep_value_takes_no_more_than_linear_time():
    value: Any = "wrong"
    for _ in range(120):
        value = {"name": 5, "below": [value, value] if value == "wrong" else [value]}
    with pytest.raises(Mistakes):
        DEFAULT.conversion(Tree)(value)


@attrs.frozen
class Left:
    inner: Left | Right | None
    n: int


@attrs.frozen
class Right:
    inner: Left | Right | None


def test_values_nested_in_unions_are_gone_through_once():
    right: object = None
    wrong: object = 5
    for _ in range(60):  # twice at each level would never end
        right, wrong = {"inner": right}, {"inner": wrong}
    assert "result" in rpc(Left | Right, right)[0]
    assert errors(Left | Right, wrong).startswith("x must be Left or Right, not an object")
