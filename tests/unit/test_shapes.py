"""The shape of replies, by return annotation, and that replies have it."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from linepool import App, Range, Reply
from linepool.protocols.jsonrpc import JsonRpc
from linepool.protocols.shapes import shape_in_lines, shape_of

Key = NewType("Key", str)
T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    GREEN = "green"


@attrs.frozen
class Receipt:
    id: int
    to: str = "ann"


@dataclass
class Point:
    x: int
    y: int = 0


class Pair(NamedTuple):
    name: str
    size: int


class Model(pydantic.BaseModel):
    size: int


class Struct(msgspec.Struct):
    size: int


class Options(TypedDict):
    depth: int


def generated() -> Iterator[int]:
    yield from (1, 2)


FIELD = "name and value of each field"
# annotation, kind and form in lines, text, and values that a handler may return.
LINES = [
    (int, "one", "text", "int", [3]),
    (str, "one", "text", "str", ["two words"]),
    (bytes, "one", "text", "bytes", [b"\xff"]),
    (bool, "one", "text", "bool", [True]),
    (Decimal, "one", "text", "Decimal", [Decimal("1.50")]),
    (date, "one", "text", "date", [date(2026, 1, 31)]),
    (UUID, "one", "text", "UUID", [UUID(int=1)]),
    (Key, "one", "text", "str", ["k"]),
    (Colour, "one", "text", "red|green", [Colour.RED]),
    (Literal["a", "b"], "one", "text", "a|b", ["a"]),
    (Annotated[int, Range(1, 3)], "one", "text", "int", [2]),
    (str | int, "one", "text", "str or int", ["a", 1]),
    (str | None, "one", "text", "str or OK", ["a", None]),
    (type(None), "none", "", "OK", [None]),
    (list[int], "many", "text", "int, one a line, then END", [[], [1, 2]]),
    (set[str], "many", "text", "str, one a line, then END", [{"a"}]),
    (Sequence[Decimal], "many", "text", "Decimal, one a line, then END", [[Decimal(1)]]),
    (tuple[int, str], "many", "text", "int|str, one a line, then END", [(1, "a")]),
    (tuple[int, ...], "many", "text", "int, one a line, then END", [(1, 2, 3)]),
    (Iterator[int], "many", "text", "int, one a line, then END", [generated]),
    (Generator[int, None, None], "many", "text", "int, one a line, then END", [generated]),
    (Iterable[tuple[str, int]], "many", "row", "str int, one a line, then END", [[("a", 1)]]),
    (list[list[int]], "many", "row", "int ..., one a line, then END", [[[1, 2], [3]]]),
    (list[Pair], "many", "row", "str int, one a line, then END", [[Pair("a", 1)]]),
    (list[int] | tuple[str, ...], "many", "text", None, [[1], ("a",)]),
    (dict[str, int], "fields", "text", "str int, one a line, then END", [{"a": 1}, {}]),
    (Mapping[str, int], "fields", "text", "str int, one a line, then END", [{"a": 1}]),
    (dict, "fields", "text", f"{FIELD}, one a line, then END", [{"a": 1}]),
    (Receipt, "fields", "text", f"{FIELD} of Receipt, one a line, then END", [Receipt(1)]),
    (Point, "fields", "text", f"{FIELD} of Point, one a line, then END", [Point(1)]),
    (Options, "fields", "text", f"{FIELD} of Options, one a line, then END", [{"depth": 1}]),
    (Model, "fields", "text", f"{FIELD} of Model, one a line, then END", [Model(size=1)]),
    (Struct, "fields", "text", f"{FIELD} of Struct, one a line, then END", [Struct(1)]),
    (list[Model], "many", "json", "JSON of Model, one a line, then END", [[Model(size=1)]]),
    (timedelta, "one", "text", "timedelta", [timedelta(seconds=90)]),
    (list[int] | None, "unknown", "", "OK; or int, one a line, then END", []),
    (int | list[str], "unknown", "", "int; or str, one a line, then END", []),
    (Receipt | None, "unknown", "", f"OK; or {FIELD} of Receipt, one a line, then END", []),
    (Any, "unknown", "", "", []),
    (Reply, "unknown", "", "", []),
    (T, "unknown", "", "", []),
    (None, "unknown", "", "", []),
]


def read_by(kind: str, data: bytes) -> list[bytes]:
    """Return what is left of replies after reading one by its shape, as a client would."""
    lines = data.splitlines(keepends=True)
    if kind in ("many", "fields"):
        return lines[lines.index(b"END\n") + 1 :]
    return lines[1:]


@pytest.mark.parametrize(("hint", "kind", "form", "text", "values"), LINES)
def test_the_shape_of_a_reply_in_lines(hint, kind, form, text, values):
    shape = shape_in_lines(hint, as_json=False)
    assert (shape.kind, shape.form) == (kind, form)
    assert text is None or shape.text == text
    app = App()

    @app.handler
    def get(at: int):
        value = values[at]
        return value() if callable(value) else value

    for at in range(len(values)):
        reply = app.ask(b"GET %d\n" % at)
        assert not reply.startswith((b"SERVER_ERROR", b"CLIENT_ERROR"))
        assert read_by(kind, reply) == []


def test_structured_values_may_be_one_line_of_json():
    shape = shape_in_lines(Receipt | None, as_json=True)
    assert (shape.kind, shape.form, shape.text) == ("one", "json", "JSON of Receipt or OK")
    shape = shape_in_lines(Iterator[Receipt], as_json=False)
    assert (shape.kind, shape.form) == ("many", "json")
    assert shape.text == "JSON of Receipt, one a line, then END"


@pytest.mark.parametrize(
    ("hint", "kind", "value"),
    [
        (int, "one", int),
        (list[int], "many", int),
        (Iterator[Receipt], "many", Receipt),
        (list[int] | None, "one", list[int] | None),
        (Receipt, "one", Receipt),
        (dict[str, int], "one", dict[str, int]),
        (type(None), "none", type(None)),
        (Any, "unknown", Any),
        (None, "unknown", Any),
    ],
)
def test_the_shape_of_a_reply_in_a_protocol_with_types(hint, kind, value):
    shape = shape_of(hint)
    assert (shape.kind, shape.value) == (kind, value)


def test_help_says_what_a_command_returns():
    app = App()

    @app.handler
    def countdown(start: int) -> Iterator[int]:
        """Count down."""
        yield from range(start, 0, -1)

    @app.handler
    def untyped(): ...

    assert app.ask(b"HELP COUNTDOWN\n").decode().splitlines() == [
        "COUNTDOWN start:int",
        "Returns: int, one a line, then END",
        "Count down.",
        "END",
    ]
    assert app.ask(b"HELP UNTYPED\n") == b"UNTYPED\nEND\n"
    shape = JsonRpc().shape(app.freeze().commands[0])
    assert (shape.kind, shape.text) == ("many", "Iterator[int]")
