"""An app whose commands and types are of all kinds that a stub must deal with, odd names above all."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import annotated_types
import attrs
import msgspec
import pydantic

import linepool
from linepool import Line, Range, Rest, Secret, Verb

T = TypeVar("T")
Key = NewType("Key", str)

app = linepool.App("wide-shop", protocol=Line(records="json"))


class Colour(enum.Enum):
    RED = "red"
    GREEN = 'it\'s "green"'


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Odd(enum.Enum):
    HALF = 0.5
    NONE = None
    PAIR = (1, 2)


@attrs.frozen
class Node:
    """A node of a tree.

    It may have children, and says ``\\d`` and three quotes: \"\"\".
    """

    name: str
    children: list[Node] = attrs.field(factory=list)
    parent: Node | None = None
    weight: Annotated[float, Range(0, 10)] = 1.0


@dataclasses.dataclass(frozen=True)
class Box(Generic[T]):
    held: T
    more: list[T] = dataclasses.field(default_factory=list)


@attrs.frozen
class Defaults:
    _hidden: int
    colour: Colour = Colour.GREEN
    level: Level = Level.HIGH
    price: Decimal = Decimal("12.50")
    day: date = date(2026, 1, 31)
    at: datetime = datetime(2026, 1, 31, 12, tzinfo=UTC)
    wait: timedelta = timedelta(hours=1, seconds=0.5)
    key: UUID = UUID(int=5)  # noqa: RUF009
    data: bytes = b"\xff\"'\n"
    text: str = (
        "a long text that needs more room than there is in a line, or almost as much, surely"
    )
    list: Sequence[int] = (1, 2)
    table: dict[str, Sequence[int]] = attrs.field(factory=dict)
    made: Sequence[int] = attrs.field(factory=lambda: [7])
    pin: Secret = Secret("0000")  # noqa: RUF009
    box: Box[int] = Box(3)
    date_: time = time(12, 30)
    total: int = attrs.field(init=False, default=9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
    first: bool = True
    second: str
    field: str = "x"
    dataclass: str | None = None
    int: float = 0.5
    self: bool = True


class Pair(NamedTuple):
    """A name and how often."""

    name: str
    count_: int = 0
    day: date | None = None


class Options(TypedDict, total=False):
    depth: int
    colour: NotRequired[Colour]


Keys = TypedDict("Keys", {"class": int, "a-b": NotRequired["list[Keys]"], "x": Secret})


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square", rename={"side": "side-length"}):
    side: float = 1.5


class Model(pydantic.BaseModel):
    """A model of pydantic."""

    id_: int = pydantic.Field(ge=1, alias="_id")
    when: datetime | None = None
    kind: Literal["a", "b"] = "a"
    nested: Model | None = None
    shade: Colour = Colour.RED
    tags: set[str] = pydantic.Field(default_factory=set)


@attrs.frozen
class Cat:
    kind: Literal["cat"]
    lives: int = 9


@attrs.frozen
class Dog:
    kind: Literal["dog"]
    name: str


@attrs.frozen
class Command:
    """Named like what the stub imports."""

    Any: str
    Decimal: Decimal


@attrs.frozen
class WideShop:
    """Named like the stub's own class."""

    x: int


# -- names of commands that are names of something else


@app.handler
def list_() -> list[str]:
    """Named like a type, so ``list`` is hidden in the class."""
    return ["a", "b"]


@app.handler
def set_(key: str, value: bytes, *, ex: float | None = None, nx: bool = False) -> str:
    """Set a key."""
    return f"{key} {value!r} {ex} {nx}"


@app.handler
def date_(day: date) -> date:
    return day + timedelta(days=1)


@app.handler("close")
def close() -> str:
    """Named like a method of the client."""
    return "closed"


@app.handler("pipeline")
def pipeline_(of: int) -> int:
    return of


@app.handler("call", "CALLED")
def call_(verb: Verb, command: str, args: int) -> str:
    return f"{verb} {command} {args}"


@app.handler("class")
def class_(self: int, cls: int = 2, *, async_: bool = False) -> list[Any]:
    return [self, cls, async_]


@app.handler("config-get")
def config_get(pattern: str = "*") -> dict[str, str]:
    """Get \\d what matches.

    The pattern is "quoted"
    """
    return {"pattern": pattern}


@app.handler("config.get")
def config_get_too() -> int:
    return 2


@app.handler("2fa")
def two(code: Annotated[int, Secret]) -> bool:
    return code == 1234


@app.handler("+")
def plus(a: int, /, b: int) -> int:
    """Add."""
    return a + b


@app.handler("__init__")
def dunder() -> None:
    pass


@app.handler("größe")
def size(länge: float) -> float:  # noqa: PLC2401
    return länge * 2


@app.handler("import")
def from_(lambda_: str) -> str:
    """ "Quoted" from the beginning to the end of a line that is longer than a line of a docstring is."""
    return lambda_


# -- parameters


@app.handler(idempotent=True)
def nothing() -> None:
    """Do nothing."""


@app.handler
def anything(value: Any):
    return value


@app.handler
def mean(first: float, *more: float) -> float:
    return (first + sum(more)) / (1 + len(more))


@app.handler
def say(times: int = 1, *, text: Rest) -> str:
    return str(text) * times


@app.handler
def put(name: str, size: int, ttl: int = 5, data: bytes = linepool.body("size")) -> str:
    """Store a block."""
    return f"{name} {size} {ttl} {data!r}"


@app.handler
def defaults(  # noqa: PLR0917
    to: str = 'say "hi"',
    amount: Annotated[Decimal, annotated_types.Gt(0)] = Decimal("12.50"),
    colour: Colour = Colour.GREEN,
    odd: Odd = Odd.HALF,
    many: list[int] = [1, 2],  # noqa: B006
    node: Node = Node("x"),
    pin: Secret = Secret("0000"),  # noqa: B008
    wrong: int = None,  # type: ignore[assignment]  # noqa: RUF013
    limit: Annotated[int, Range(1, 100)] = 10,
    since: date | None = None,
    mode: Literal["on", "off", 3, None] = "on",
    text: str = "x" * 90,
) -> list[str]:
    return [
        *(to, str(amount), colour.name, odd.name, str(many), node.name, pin.reveal()),
        *(str(wrong), str(limit), str(since), str(mode), str(len(text))),
    ]


@app.handler
def keywords(
    *,
    a_parameter_with_a_long_name: Annotated[str, annotated_types.Len(1, 8)] = "a",
    another_parameter_with_a_long_name: dict[str, dict[str, list[Colour | Level | None]]]
    | None = None,
    needed: Path,
) -> str:
    return f"{a_parameter_with_a_long_name} {another_parameter_with_a_long_name} {needed}"


@app.handler
def scalars(  # noqa: PLR0917
    a: int,
    b: float,
    c: bool,
    d: bytes,
    e: datetime,
    f: time,
    g: timedelta,
    h: UUID,
    i: Fraction,
    j: IPv4Address,
    k: IPv6Network,
    l: Key,  # noqa: E741
    m: Path,
) -> tuple[
    int,
    float,
    bool,
    bytes,
    datetime,
    time,
    timedelta,
    UUID,
    Fraction,
    IPv4Address,
    IPv6Network,
    Key,
    Path,
]:
    return a, b, c, d, e, f, g, h, i, j, k, l, m


# -- classes and results


@app.handler
def grow(node: Node, times: int = 1) -> Node:
    for _ in range(times):
        node = Node("root", [node], Node("parent"))
    return node


@app.handler
def boxes(box: Box[int]) -> Box[Node | None]:
    return Box(Node(str(box.held)), [None] * len(box.more))


@app.handler
def filled(one: Annotated[Defaults, linepool.Argument]) -> Defaults:
    return one


@app.handler
def named(one: Named) -> Named:
    return one


@app.handler
def pairs(one: Pair, others: list[Pair]) -> list[Pair]:
    return [*others, one]


@app.handler
def pair() -> Pair:
    return Pair("tea", 2, date(2026, 1, 31))


@app.handler
def options(given: Options, keys: Keys) -> Options | None:
    return given if given.get("depth") != 0 else None


@app.handler
def keyed(keys: Keys) -> Keys:
    return keys


@app.handler
def shapes(one: Circle | Square) -> Circle | Square:
    return one


@app.handler
def modelled(model: Model) -> Model:
    return model


@app.handler
def pets(*animals: Cat | Dog) -> list[Cat | Dog]:
    return list(animals)


@app.handler
def commanded(command: Command, shop: WideShop) -> tuple[Command, WideShop]:
    return command, shop


@app.handler
def tables(
    by_number: dict[int, Decimal], by_key: Mapping[UUID, set[int]], by_colour: dict[Colour, int]
) -> dict[int, Decimal]:
    return {sum(by_number): Decimal(sum(map(len, by_key.values())) + sum(by_colour.values()))}


@app.handler
def unique(numbers: set[int]) -> set[int]:
    return numbers


@app.handler
def photo() -> bytes:
    return b"a\n\xff"


@app.handler
def either(number: int) -> int | list[int] | None:
    return None if number == 0 else number if number < 0 else [number]


@app.handler
def found(text: str) -> Decimal | None:
    return Decimal(text) if re.fullmatch(r"\d+", text) else None


@app.handler
def nodes(start: int) -> Iterator[Node]:
    for number in range(start, 0, -1):
        yield Node(str(number))


@app.handler
def countdown(start: int) -> Generator[int, None, None]:
    yield from range(start, 0, -1)


@app.handler
def rows() -> Iterator[tuple[str, Colour]]:
    yield "a", Colour.RED
    yield "b", Colour.GREEN


@app.handler
def untyped() -> Iterator:  # type: ignore[type-arg]
    yield 1


@app.handler
def fails(how: str) -> int:
    if how == "client":
        raise linepool.ClientError("not so", code=404)
    raise RuntimeError(how)


class Counted(NamedTuple):
    name: str
    count: int  # type: ignore[assignment]


class Named2(enum.Enum):
    name = "a"
    other = "b"


@app.handler
def counted(one: Counted, kind: Named2) -> tuple[Counted, Named2]:
    return one, kind
