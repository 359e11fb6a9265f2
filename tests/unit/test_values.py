"""Values at the edges: scalars of other libraries, numbers that only Python reads, classes in circles."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Annotated, Any, NewType
from uuid import UUID

import pytest
from attrs import frozen

from linepool import App, Dialogue, JsonRpc, Line, Memcache, Protocol, Range, Resp, SetupError


def reply(protocol: Protocol, value: object) -> bytes:
    """Return the reply to a command whose handler returns the value."""
    app = App(protocol=protocol)
    app.handler("show")(lambda: value)
    if isinstance(protocol, JsonRpc):
        return app.ask(b'{"jsonrpc":"2.0","id":1,"method":"show"}\n')
    return app.ask(b"show\r\n").removeprefix(b"220 ready\r\n").removeprefix(b"+OK ready\r\n")


def rpc(app: App, method: str, *params: Any) -> Any:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return json.loads(app.ask(json.dumps(message).encode() + b"\n"))


# -- scalars of other libraries, made like NumPy's


class Float64(float):
    shape = ()

    def __repr__(self) -> str:
        return f"lib.float64({float(self)})"

    def item(self) -> float:
        return float(self)


class Scalar:
    """A scalar that is not a subclass of Python's own."""

    shape = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value


class Int64(Scalar):
    def __int__(self) -> int:
        return int(self.value)


class Float32(Scalar):
    def __float__(self) -> float:
        return float(self.value)


class LongDouble(Float32):
    def item(self) -> Any:
        return self


class Text(str):
    shape = ()

    def __repr__(self) -> str:
        return f"lib.str_({str(self)!r})"


numbers.Integral.register(Int64)
numbers.Real.register(Float32)
SCALARS: list[tuple[object, object]] = [
    (Float64(3.5), 3.5),
    (Float64("nan"), math.nan),
    (Int64(-7), -7),
    (Float32(0.5), 0.5),
    (LongDouble(0.5), 0.5),
    (Scalar(True), True),
    (Scalar(datetime(2026, 1, 31)), datetime(2026, 1, 31)),
    (Text("ann"), "ann"),
]
PROTOCOLS: list[Callable[[], Protocol]] = [Line, Memcache, Resp, JsonRpc, Dialogue, Dialogue.pop3]


@pytest.mark.parametrize(("scalar", "plain"), SCALARS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_scalar_of_another_library_is_sent_as_pythons_own(protocol, scalar, plain):
    def without_id(data: bytes) -> bytes:  # JSON has no NaN, and POP3 no number without a list
        return data.partition(b"internal error")[0]

    assert without_id(reply(protocol(), scalar)) == without_id(reply(protocol(), plain))
    if protocol is not Memcache:
        assert without_id(reply(protocol(), [scalar])) == without_id(reply(protocol(), [plain]))
        assert without_id(reply(protocol(), {"a": scalar})) == without_id(
            reply(protocol(), {"a": plain})
        )


def test_a_scalar_is_sent_in_plain_text():
    assert reply(Line(), Float64(3.5)) == b"3.5\r\n"
    assert reply(Line(), [(Int64(1), Float64(2.5))]) == b"1 2.5\r\nEND\r\n"
    assert reply(Resp(), Float64(3.5)) == b"$3\r\n3.5\r\n"
    assert reply(Resp(), Int64(3)) == b":3\r\n"
    assert reply(Memcache(), Int64(3)) == b"3\r\n"
    assert reply(Dialogue(), (Int64(250), Float64(3.5))) == b"250 3.5\r\n"
    assert b'"result":{"a":[3.5,7]}' in reply(JsonRpc(), {"a": (Float64(3.5), Int64(7))})


def test_scalars_may_be_keys():
    class Kind(Enum):
        BIG = "big"

    value = {Int64(1): [{Float32(0.5): Int64(2)}], Kind.BIG: 3, date(2026, 1, 31): {4: None}}
    said = reply(JsonRpc(), (value, Decimal("1.5")))
    assert json.loads(said)["result"] == [
        {"1": [{"0.5": 2}], "big": 3, "2026-01-31": {"4": None}},
        "1.5",
    ]
    assert reply(Line(), {Int64(1): Int64(2)}) == b"1 2\r\nEND\r\n"
    assert reply(Memcache(), {Int64(1): Int64(2)}) == b"STAT 1 2\r\nEND\r\n"
    assert reply(Resp(), {Int64(1): Int64(2)}) == b"*2\r\n:1\r\n:2\r\n"


@pytest.mark.parametrize("value", [{(1, 2): 3}, {Int64(1): {1j}}])
def test_a_key_without_a_form_in_json_is_an_internal_error(value, caplog):
    assert b"internal error" in reply(JsonRpc(), value)
    assert "cannot send a" in caplog.text


# -- what has no form in a protocol


class Secret:
    """What must not be shown to a client."""

    def __repr__(self) -> str:
        return "Secret(password)"


@pytest.mark.parametrize("value", [Secret(), (250, Secret()), (250, ["a", Secret()]), [Secret()]])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_without_a_form_is_an_internal_error_that_names_its_type(protocol, value, caplog):
    said = reply(protocol(), value)

    assert b"internal error" in said
    assert b"Secret" not in said
    assert "TypeError" in caplog.text
    assert "cannot send" in caplog.text or "cannot answer" in caplog.text
    assert "password" not in caplog.text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((250, None), b"250 \r\n"),
        ((250, b"caf\xe9"), b"250 caf\xe9\r\n"),
        ((250, [True, 1, Decimal("1.50")]), b"250-true\r\n250-1\r\n250 1.50\r\n"),
        (date(2026, 1, 31), b"250 2026-01-31\r\n"),
    ],
)
def test_a_dialogue_sends_values_as_text(value, said):
    assert reply(Dialogue(), value) == said


def test_the_error_of_a_structured_argument_shows_no_text_of_python():
    app = App()

    @frozen
    class Point:
        x: int
        y: int = 0

    app.handler("JS")(_takes(Point))
    app.handler("MAP")(_takes(dict[str, int]))
    app.handler("ROWS")(_takes(list[list[int]]))
    for value in ("null", "5", '"x"', "[]", "[null]", "[[1], 2]", '{"x": null}', '{"x": []}'):
        for verb in ("JS", "MAP", "ROWS"):
            said = app.ask(f"{verb} '{value}'\n".encode())
            if said != b"OK\n":
                assert said.startswith(b"CLIENT_ERROR "), said
                for internal in (
                    b"NoneType",
                    b" has no ",
                    b"attribute",
                    b"unknown error",
                    b"iterable",
                ):
                    assert internal not in said, said


def test_numbers_within_a_structured_argument_are_strict():
    app = App()
    app.handler("SUM")(_takes(list[int]))

    assert app.ask(b"SUM [1,2]\n") == b"OK\n"
    app.handler("TIMES")(_takes(list[datetime]))
    for value in ('["1_0"]', '["1"]', "[1.9]", "[true]", '["\u0661"]'):
        assert app.ask(f"SUM '{value}'\n".encode()).startswith(
            b"CLIENT_ERROR x[0] must be int, not "
        )
    assert app.ask(b"TIMES '[\"2026-01-31T12:00\"]'\n") == b"OK\n"
    assert app.ask(b"TIMES '[\"2026-01-31_12:00\"]'\n").startswith(
        b"CLIENT_ERROR x[0] must be datetime such as"
    )


@pytest.mark.parametrize("kind", [dict[int, float], dict[int, list[int]] | None], ids=str)
def test_the_keys_of_a_structured_argument_may_be_numbers(kind):
    app, typed = App(), App(protocol=JsonRpc())
    for one in (app, typed):
        one.handler("keys")(_keys(kind))
    item = 5.0 if kind == dict[int, float] else [5]

    assert app.ask(f"keys '{json.dumps({7: item})}'\n".encode()) == b"7\n"
    assert rpc(typed, "keys", {7: item})["result"] == "7"
    wrong: list[object] = [{"1_0": item}, {"\u0661": item}, {"x": item}, {"1": "5"}, [item], 5]
    for value in wrong:
        assert app.ask(f"keys '{json.dumps(value)}'\n".encode()).startswith(b"CLIENT_ERROR x")
        assert rpc(typed, "keys", value)["error"]["code"] == -32602


def _keys(kind: Any) -> Callable[..., str]:
    def keys(x: Any) -> str:
        return " ".join(map(repr, x))

    keys.__annotations__ = {"x": kind}
    return keys


# -- numbers that only Python reads


def _takes(kind: Any) -> Callable[..., None]:
    def take(x: Any) -> None: ...

    take.__annotations__ = {"x": kind}
    return take


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, "12", ["1_2", "\u0661\u0662", "\uff11"]),
        (float, "1.5", ["1_0.5", "\u0661.5"]),
        (Decimal, "1.5", ["1_0", "\u0661", "\uff11.5"]),
        (Fraction, "1/2", ["1_0/2", "\u0661/2"]),
        (UUID, "12345678123456781234567812345678", ["1234567812345678123456781234567_8"[:32]]),
        (UUID, "12345678-1234-5678-1234-567812345678", ["\u06612345678123456781234567812345678"]),
        (date, "2026-01-31", ["\uff12026-01-31"]),
        (datetime, "2026-01-31T12:00", ["2026-01-31_12:00", "2026-01-31\u065112:00"]),
        (int | None, "12", ["1_2"]),
        (Decimal | None, "12", ["1_2", "\u0661"]),
        (Annotated[Decimal, Range(0, 99)], "12", ["1_2", "\u0661"]),
    ],
)
def test_numbers_have_the_digits_of_ascii_and_no_underscores(kind, good, bad):
    app, typed = App(), App(protocol=JsonRpc())
    app.handler("TAKE")(_takes(kind))
    typed.handler("take")(_takes(kind))

    assert app.ask(f"TAKE {good}\n".encode()) == b"OK\n"
    for text in bad:
        assert app.ask(f"TAKE {text}\n".encode()).startswith(b"CLIENT_ERROR x must be "), text
        assert rpc(typed, "take", text)["error"]["code"] == -32602


# -- Range


@pytest.mark.parametrize(
    "kind",
    [int | None, float | None, Decimal | None, Decimal | int | None, Fraction | None],
    ids=str,
)
def test_a_range_lets_the_null_of_an_optional_number_pass(kind):
    app = App(protocol=JsonRpc())

    def take(x: Any) -> object:
        return x

    take.__annotations__ = {"x": Annotated[kind, Range(1, 9)]}
    app.handler("take")(take)

    assert rpc(app, "take", None)["result"] is None
    refused: list[object] = [10, 0, "NaN", "sNaN", "Infinity", "x", [], True, 1e400]
    for wrong in refused:
        assert rpc(app, "take", wrong)["error"]["code"] in (-32602, -32700), wrong


@pytest.mark.parametrize("kind", [str, bool, int | str, Any, date, list[int], bool | None], ids=str)
def test_a_range_of_what_is_not_a_number_is_refused_at_the_start(kind):
    for protocol in (Line(), JsonRpc()):
        app = App(protocol=protocol)
        app.handler("TAKE")(_takes(Annotated[kind, Range(1, 9)]))
        with pytest.raises(SetupError, match="a Range bounds numbers, not "):
            app.freeze()


def test_a_range_bounds_a_new_type_of_a_number():
    app = App(protocol=JsonRpc())
    app.handler("take")(_takes(Annotated[NewType("Id", int), Range(1, 9)]))
    assert rpc(app, "take", 10)["error"]["code"] == -32602


# -- rpc.discover


@frozen
class Node:
    """A class that refers to itself."""

    name: str
    children: list[Node]
    parent: Node | None = None
    edge: Edge | None = None


@frozen
class Edge:
    """A class that refers to one that refers to it."""

    ends: tuple[Node, ...]


class Shape(Enum):
    """An enumeration with values that JSON has no form for."""

    ROUND = Secret()
    FLAT = "flat"


def test_rpc_discover_describes_classes_that_refer_to_themselves():
    app = App(protocol=JsonRpc())

    @app.handler
    def add(
        node: Node, shape: Shape = Shape.FLAT, size: Annotated[float, Range(0, math.inf)] = 1
    ) -> Edge | None: ...

    found = rpc(app, "rpc.discover")["result"]
    schemas = found["components"]["schemas"]
    reference = {"$ref": "#/components/schemas/Node"}
    method = next(method for method in found["methods"] if method["name"] == "add")

    assert list(schemas) == ["Node", "Edge"]
    assert schemas["Node"]["properties"]["children"] == {"type": "array", "items": reference}
    assert schemas["Node"]["required"] == ["name", "children"]
    assert schemas["Edge"]["properties"]["ends"] == {"type": "array", "items": reference}
    assert method["params"][0]["schema"] == reference
    shape = {"title": "Shape", "enum": ["ROUND", "flat"], "x-enum-varnames": ["ROUND", "FLAT"]}
    assert method["params"][1]["schema"] == {**shape, "default": "flat"}
    assert method["params"][2]["schema"] == {"type": "number", "minimum": 0, "default": 1}
    message = {"name": "a", "children": [{"name": "b", "children": []}]}
    assert rpc(app, "add", message)["result"] is None


def test_rpc_discover_tells_two_classes_of_one_name_apart():
    other = frozen(type("Node", (), {"__annotations__": {"size": int}}))
    app = App(protocol=JsonRpc())
    app.handler("a")(_returns(Node))
    app.handler("b")(_returns(other))

    schemas = rpc(app, "rpc.discover")["result"]["components"]["schemas"]
    assert schemas["Node2"]["properties"] == {"size": {"type": "integer"}}


def _returns(kind: Any) -> Callable[..., None]:
    def give() -> None: ...

    give.__annotations__ = {"return": kind}
    return give


def test_an_optional_argument_that_can_be_left_out_alone_is_an_option_word():
    app = App()

    @app.handler
    def cut(text: str, *, begin: int = 0, end: int = 9, loud: bool = False) -> str:
        return text[begin:end].upper() if loud else text[begin:end]

    assert app.ask(b"cut abcdef END 2\ncut abcdef LOUD BEGIN 4\n") == b"ab\nEF\n"
