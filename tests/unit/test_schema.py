"""JSON Schemas of annotations, compared with what is read and what is sent; and which types are sent."""

import asyncio
import base64
import dataclasses
import enum
import fractions
import ipaddress
import json
import pathlib
import sqlite3
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NoReturn,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import annotated_types
import attrs
import jsonschema
import msgspec
import pydantic
import pytest

from linepool import App, Range, Reply, Rest, Secret
from linepool.errors import SetupError
from linepool.handlers.from_json import json_converter
from linepool.protocols.jsonrpc import JsonRpc
from linepool.protocols.resp import Resp, Status
from linepool.values.json_text import dumps
from linepool.values.schema import Schemas
from linepool.values.sendable import problem_of

T = TypeVar("T")
Key = NewType("Key", str)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Node:
    """A node of a tree."""

    name: str
    children: list["Node"] = attrs.field(factory=list)
    parent: "Node | None" = None
    weight: Annotated[float, Range(0, 10)] = 1.0


@dataclasses.dataclass
class Box(Generic[T]):
    held: T
    more: list[T] = dataclasses.field(default_factory=list)


class Pair(NamedTuple):
    name: str
    count_: int = 0


class Options(TypedDict):
    depth: int
    colour: NotRequired[Colour]


class Partial(TypedDict, total=False):
    depth: Required[int]
    name: str


@attrs.frozen
class Circle:
    kind: Literal["circle"]
    radius: float


@attrs.frozen
class Square:
    kind: Literal["square"]
    side: float


class Model(pydantic.BaseModel):
    """A model of pydantic."""

    count: int = pydantic.Field(ge=1)
    nested: "Model | None" = None


class Struct(msgspec.Struct):
    count: int
    nested: "Struct | None" = None


class Apart:
    """Nothing can be done with its objects."""


class Base:
    """Of a class that can be sent."""


@attrs.frozen
class Derived(Base):
    size: int


def schema_of(hint: Any, *, reply: bool = False) -> dict[str, Any]:
    schemas = Schemas()
    found = schemas.of(hint, reply=reply)
    return {**found, "$defs": schemas.classes}


def is_valid(schema: dict[str, Any], value: object) -> bool:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def is_taken(convert: Callable[[Any], Any], value: object) -> bool:
    try:
        convert(value)
    except ValueError:
        return False
    return True


def changed(value: Any) -> Iterator[Any]:
    """Yield values that differ from one of JSON in one place."""
    yield from (None, True, 0, -1, 1.5, 99, "", "zzz", [], {}, [1], {"zzz": 1})
    if isinstance(value, list):
        yield [*value, None]
        yield value[:-1]
        for at, inner in enumerate(value):
            yield from ([*value[:at], other, *value[at + 1 :]] for other in changed(inner))
    if isinstance(value, dict):
        yield {**value, "zzz": 1}
        for key, inner in value.items():
            yield {name: one for name, one in value.items() if name != key}
            yield from ({**value, key: other} for other in changed(inner))


COLOUR = {"title": "Colour", "x-enum-varnames": ["RED", "GREEN"]}
LEVEL = {"title": "Level", "x-enum-varnames": ["LOW", "HIGH"]}
# annotation, schema without $defs or None, JSON values that are read
READ: list[tuple[Any, dict[str, Any] | None, list[Any]]] = [
    (int, {"type": "integer"}, [3]),
    (float, {"type": "number"}, [1.5, 2]),
    (bool, {"type": "boolean"}, [True]),
    (str, {"type": "string"}, ["a"]),
    (Key, {"type": "string"}, ["a"]),
    (type(None), {"type": "null"}, [None]),
    (Any, {}, [1, None]),
    (list, {"type": "array"}, [[1, "a"]]),
    (dict, {"type": "object"}, [{"a": 1}]),
    (Colour, {**COLOUR, "enum": ["red", "green"]}, ["red"]),
    (Level, {**LEVEL, "enum": [1, 2]}, [2]),
    (Literal["a", 1], {"enum": ["a", 1]}, ["a", 1]),
    (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, [1, "a"]),
    (list[int], {"type": "array", "items": {"type": "integer"}}, [[], [1, 2]]),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, [[], [1]]),
    (tuple[int, str], None, [[1, "a"]]),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, [{"a": 1}]),
    (dict[int, str], None, [{"1": "a"}]),
    (Annotated[int, Range(1, 9)], {"type": "integer", "minimum": 1, "maximum": 9}, [1, 9]),
    (Annotated[float, Range(min=0.5)], {"type": "number", "minimum": 0.5}, [0.5]),
    (Node, {"$ref": "#/$defs/Node"}, [{"name": "a", "children": [{"name": "b"}], "parent": None}]),
    (list[Node] | None, None, [[{"name": "a", "weight": 2}], None]),
    (Box[int], {"$ref": "#/$defs/Box_int"}, [{"held": 1, "more": [2]}]),
    (Options, {"$ref": "#/$defs/Options"}, [{"depth": 1}, {"depth": 1, "colour": "red"}]),
    (Partial, {"$ref": "#/$defs/Partial"}, [{"depth": 1}, {"depth": 1, "name": "a"}]),
    (Annotated[int, annotated_types.Interval(ge=0, lt=5)], None, [0, 4]),
    (Annotated[int, annotated_types.MultipleOf(3)], None, [0, 99]),
    (Annotated[str, annotated_types.Len(1, 3)], None, ["a", "abc"]),
    (Annotated[list[int], annotated_types.MaxLen(2)], None, [[], [1, 2]]),
    (Annotated[dict[str, int], annotated_types.MinLen(1)], None, [{"a": 1}]),
    (Annotated[str, msgspec.Meta(pattern="^z")], None, ["z"]),
    (dict[Colour, int], None, [{"red": 1}]),
    (set[int], None, [[], [1, 2]]),
    (Pair, None, [["a", 1], ["a"]]),
    (Box[Node | None], None, [{"held": None}, {"held": {"name": "a"}}]),
    (Model, {"$ref": "#/$defs/Model"}, [{"count": 1, "nested": {"count": 2}}]),
    (list[Struct], None, [[{"count": 1, "nested": None}]]),
    (Circle | Square, None, [{"kind": "circle", "radius": 1}, {"kind": "square", "side": 2.5}]),
]


@pytest.mark.parametrize(("hint", "expected", "values"), READ, ids=lambda one: str(one)[:40])
def test_what_a_schema_accepts_is_read(hint, expected, values):
    schema = schema_of(hint)
    if expected is not None:
        assert {key: one for key, one in schema.items() if key != "$defs"} == expected
    convert, _ = json_converter(hint)
    for value in values:
        assert is_valid(schema, value)
        assert is_taken(convert, value)
        for other in changed(value):
            assert is_taken(convert, other) or not is_valid(schema, other), other


# annotation, schema, values that a handler returns
SENT: list[tuple[Any, dict[str, Any] | None, list[Any]]] = [
    (Decimal, {"type": "string", "format": "decimal"}, [Decimal("12.50")]),
    (UUID, {"type": "string", "format": "uuid"}, [UUID(int=5)]),
    (date, {"type": "string", "format": "date"}, [date(2026, 1, 31)]),
    (datetime, {"type": "string", "format": "date-time"}, [datetime(2026, 1, 31, tzinfo=UTC)]),
    (time, {"type": "string", "format": "time"}, [time(12)]),
    (timedelta, {"type": "string", "format": "duration"}, [timedelta(seconds=90)]),
    (bytes, {"type": "string", "contentEncoding": "base64"}, [b"\xff"]),
    (pathlib.Path, {"type": "string", "format": "path"}, [pathlib.Path("/tmp")]),
    (
        fractions.Fraction,
        {"type": "string", "format": "fraction"},
        [fractions.Fraction(1, 3)],
    ),
    (ipaddress.IPv4Address, None, [ipaddress.IPv4Address("192.0.2.1")]),
    (set[int], None, [{1, 2}]),
    (Sequence[Decimal], None, [[Decimal(1)], (Decimal(2),)]),
    (Iterator[int], {"type": "array", "items": {"type": "integer"}}, [[1, 2]]),
    (Mapping[UUID, int], None, [{UUID(int=5): 1}]),
    (dict[Colour, list[Node]], None, [{Colour.RED: [Node("a", [Node("b")])]}]),
    (Node, None, [Node("a", [Node("b")], Node("c"))]),
    (Box[Decimal], None, [Box(Decimal(1), [Decimal("2.50")])]),
    (Pair, None, [Pair("a"), Pair("a", 2)]),
    (Options, None, [{"depth": 1, "colour": Colour.GREEN}]),
    (Circle | Square | None, None, [Circle("circle", 1.5), Square("square", 2.0), None]),
    (Model, {"$ref": "#/$defs/Model"}, [Model(count=1, nested=Model(count=2))]),
    (list[Struct], None, [[Struct(1, Struct(2))]]),
    (Box[Model | Struct], None, [Box(Model(count=1)), Box(Struct(2))]),
]


@pytest.mark.parametrize(("hint", "expected", "values"), SENT, ids=lambda one: str(one)[:40])
def test_what_is_sent_is_as_the_schema_says(hint, expected, values):
    schema = schema_of(hint, reply=True)
    if expected is not None:
        assert {key: one for key, one in schema.items() if key != "$defs"} == expected
    for value in values:
        sent = json.loads(dumps(value))
        assert is_valid(schema, sent)
        if schema.get("$ref"):
            assert not all(is_valid(schema, other) for other in changed(sent))
    assert problem_of(hint) == ""


def framed_values(reply: bytes) -> list[Any]:
    """Return the values of a framed reply, as a client reads them; blocks of bytes as base64."""
    values, lines = [], reply.splitlines()
    while lines:
        mark, _, text = lines.pop(0).partition(b" ")
        if mark == b"=":
            values.append(json.loads(text))
        elif mark == b"$":
            values.append(base64.b64encode(lines.pop(0)).decode())
        else:
            assert mark in (b"*", b".")
    return values


@pytest.mark.parametrize(
    ("hint", "_", "values"),
    SENT,
    ids=lambda one: str(one)[:40],
)
def test_framed_replies_are_as_the_document_of_the_app_says(hint, _, values):
    app = App()

    @app.handler
    def get(at: int):
        return values[at]

    get.__annotations__["return"] = hint
    document = json.loads(app.ask(b"SCHEMA\n"))
    told = document["commands"][0]["reply"]
    schema = {**told["schema"], "$defs": document["$defs"]}
    for at in range(len(values)):
        reply = app.ask(b"@ GET %d\n" % at)
        assert reply.startswith(b"*") == (told["shape"] == "many"), reply
        for value in framed_values(reply):
            jsonschema.validate(value, schema)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Annotated[int, annotated_types.Ge(0)], {"minimum": 0}),
        (Annotated[int, annotated_types.Gt(0)], {"exclusiveMinimum": 0}),
        (Annotated[float, annotated_types.Lt(1.5)], {"exclusiveMaximum": 1.5}),
        (
            Annotated[float, annotated_types.Interval(ge=0, lt=1)],
            {"minimum": 0, "exclusiveMaximum": 1},
        ),
        (Annotated[int, annotated_types.MultipleOf(5)], {"multipleOf": 5}),
        (Annotated[str, annotated_types.Len(1, 8)], {"minLength": 1, "maxLength": 8}),
        (Annotated[list, annotated_types.MaxLen(8)], {"maxItems": 8}),
        (Annotated[dict, annotated_types.MinLen(1)], {"minProperties": 1}),
        (Annotated[str, msgspec.Meta(pattern="^a")], {"pattern": "^a"}),
        (Annotated[str, msgspec.Meta(description="A name.")], {"description": "A name."}),
        (Annotated[float, Range(0, float("inf"))], {"minimum": 0}),
        (Annotated[int, Secret], {"writeOnly": True}),
        (Secret, {"writeOnly": True}),
        (Rest, {}),
    ],
    ids=str,
)
def test_constraints_are_keywords(hint, expected):
    found = Schemas().of(hint)
    found.pop("type")
    assert found == expected


def test_classes_are_described_once_with_docs_and_defaults():
    schema = schema_of(tuple[Node, Node])["$defs"]
    assert list(schema) == ["Node"]
    assert schema["Node"]["description"] == "A node of a tree."
    assert schema["Node"]["required"] == ["name"]
    assert schema["Node"]["properties"]["weight"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 10,
        "default": 1.0,
    }
    assert "description" not in schema_of(Box[int])["$defs"]["Box_int"]  # a generated docstring
    assert schema_of(Box[int])["$defs"]["Box_int"]["properties"]["more"]["default"] == []
    assert schema_of(Options)["$defs"]["Options"]["x-typed-dict"]
    assert "x-typed-dict" not in schema["Node"]


def test_the_items_of_a_named_tuple_have_the_names_of_its_fields():
    assert schema_of(Pair)["$defs"]["Pair"] == {
        "type": "array",
        "prefixItems": [
            {"title": "name", "type": "string"},
            {"title": "count_", "type": "integer", "default": 0},
        ],
        "items": False,
        "minItems": 1,
    }


@pytest.mark.parametrize(
    ("hint", "is_stream", "result"),
    [
        (Iterator[int], True, {"type": "array", "items": {"type": "integer"}}),
        (set[int], False, {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (Pair, False, {"$ref": "#/$defs/Pair"}),
        (int | list[int], None, None),
        (int, None, None),
    ],
    ids=str,
)
def test_a_reply_of_several_values_is_described_as_a_whole_too(hint, is_stream, result):
    app = App()

    @app.handler
    def get():
        return None

    get.__annotations__["return"] = hint
    reply = json.loads(app.ask(b"SCHEMA\n"))["commands"][0]["reply"]
    assert (reply.get("stream"), reply.get("result")) == (is_stream, result)


def test_two_classes_of_one_name_have_two_names():
    other = attrs.frozen(type("Node", (), {"__annotations__": {"size": int}}))
    model = pydantic.create_model("Node", x=(int, ...))
    schemas = Schemas()
    found = [schemas.of(kind)["$ref"] for kind in (Node, other, model, Node, model)]
    assert [one.rpartition("/")[2] for one in found] == ["Node", "Node2", "Node3", "Node", "Node3"]


def test_a_field_that_the_class_makes_itself_is_read_only():
    @attrs.frozen
    class Made:
        _size: int
        at: int = attrs.field(init=False, default=3)

    schema = schema_of(Made)["$defs"]["Made"]
    assert schema["properties"] == {
        "size": {"type": "integer"},
        "at": {"type": "integer", "readOnly": True},
    }
    assert is_valid(schema, json.loads(dumps(Made(1))))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type X = ... is new in 3.12")
def test_a_named_type_may_refer_to_itself():
    names: dict[str, Any] = {}
    exec("type Json = int | list[Json]", names)
    schema = schema_of(names["Json"])
    assert is_valid(schema, [[1], 2])
    assert not is_valid(schema, [["a"]])
    assert problem_of(names["Json"]) == ""


# -- which types can be sent


NOTHING = object()


class NoMembers(enum.Enum):
    pass


@attrs.frozen
class Item:
    links: list[sqlite3.Connection]


@attrs.frozen
class Order:
    id: int
    items: list[Item]
    parent: "Order | None" = None


@pytest.mark.parametrize(
    ("hint", "path"),
    [
        (sqlite3.Connection, "no converter for Connection"),
        (list[sqlite3.Connection], "list[Connection]: no converter for Connection"),
        (int | Apart, "int|Apart: no converter for Apart"),
        (Iterator[Apart], "Iterator[Apart]: no converter for Apart"),
        (dict[str, Apart], "dict[str, Apart]: no converter for Apart"),
        (Annotated[Apart, 1], "no converter for Apart"),
        (
            Order,
            "Order.items: list[Item]: Item.links: list[Connection]: no converter for Connection",
        ),
        (complex, "no converter for complex"),
        (Callable, "no converter for Callable"),
        (Callable[[int], str], "no converter for Callable[[int], str]"),
        (
            dict[str, Callable[..., int]],
            "dict[str, Callable[..., int]]: no converter for Callable[..., int]",
        ),
        (Awaitable[int], "no converter for Awaitable[int]"),
        (Coroutine, "no converter for Coroutine"),
        (AsyncIterator[int], "no converter for AsyncIterator[int]"),
        (asyncio.Future, "no converter for Future"),
        (type, "no converter for type"),
        (type[int], "no converter for type[int]"),
        (list[type], "list[type]: no converter for type"),
        (NOTHING, f"no converter for {NOTHING}"),
        (3, "no converter for 3"),
        (print, "no converter for print"),
        ([int], "no converter for [<class 'int'>]"),
        (Annotated, "no converter for Annotated"),
        (NoMembers, "no converter for NoMembers"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],  # the same in each process
)
def test_a_return_annotation_that_cannot_be_sent_is_refused(hint, path):
    def pay() -> None: ...

    pay.__annotations__["return"] = hint
    for protocol in (None, JsonRpc(), Resp()):
        app = App(protocol=protocol)
        app.handler(pay)
        with pytest.raises(SetupError) as error:
            app.freeze()
        text = str(error.value)
        assert text.startswith("handler pay at ")
        assert f"test_schema.py:{pay.__code__.co_firstlineno}: return annotation: {path};" in text


@pytest.mark.parametrize(
    "hint",
    [
        None,
        Any,
        object,
        list[None],
        tuple[int, ...],
        list["Order"],
        Hashable,
        NoReturn,
        T,
        Reply,
        Status,
        Base,
        Model,
        Struct,
        range,
        bytearray,
        Iterator,
        Partial,
    ],
    ids=str,
)
def test_other_return_annotations_are_taken(hint):
    assert problem_of(hint) == ""


def test_a_handler_whose_reply_others_make_is_not_refused():
    class Own(JsonRpc):
        def encode(self, value, request):
            return b"own"

    def give() -> Apart:
        return Apart()

    own, around = App(protocol=Own()), App()
    around.middleware(lambda request, session, call_next: str(call_next(request)))
    for app in (own, around):
        app.handler(give)
        app.freeze()
