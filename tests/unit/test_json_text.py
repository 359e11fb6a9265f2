"""JSON text: the same values with msgspec and without; any value that a handler may return."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import attrs
import msgspec
import numpy
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepool import App, JsonRpc, Secret
from linepool.values import json_text
from linepool.values.json_text import dumps, loads


@pytest.fixture(params=["msgspec", "json"])
def library(request, monkeypatch):
    """Run a test with msgspec, and without it."""
    if request.param == "json":
        monkeypatch.setattr(json_text, "_library", lambda: (None, None))
    else:
        assert json_text._library() != (None, None)
    return request.param


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def without_msgspec(function: Any, value: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_library", lambda: (None, None))
        return function(value)


@settings(max_examples=30)
@given(JSON)
def test_what_is_written_is_read_back_with_any_library(value):
    text = dumps(value)
    assert b"\n" not in text
    for written in (text, without_msgspec(dumps, value)):
        for read in (loads(written), loads(written.decode()), without_msgspec(loads, written)):
            assert read == value
            assert repr(read) == repr(value)


@given(
    st.binary(max_size=20)
    | st.text(alphabet='[]{}",:0123456789.eE+-\\u daftrue\n\x01é').map(str.encode)
)
def test_any_bytes_are_read_alike_or_refused_alike(text):
    def outcome(read: Any, text: Any) -> Any:
        try:
            return repr(read(text))
        except ValueError as error:
            return str(error)

    assert outcome(loads, text) == outcome(lambda text: without_msgspec(loads, text), text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"9" * 400, int("9" * 400)),
        (b"18446744073709551616", 2**64),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'"\\ud800"', "\ud800"),
        (b"9007199254740993.0", 9007199254740992.0),
        (b" [ ]\r\n", []),
        ("é".join('""'), "é"),
    ],
)
def test_a_text_is_read(library, text, value):
    assert loads(text) == value
    assert type(loads(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        b"NaN",
        b"Infinity",
        b"[-Infinity]",
        b"",
        b"[1,]",
        b"01",
        b"1\x00",
        b'"\xff"',
        b"\xef\xbb\xbf1",
        b'"\x01"',
        b"[" * 100000,
        b"9" * 5000,
        b"{1:2}",
        b"tru",
    ],
)
def test_what_is_not_json_is_refused(library, text):
    with pytest.raises(ValueError, match=r"\w") as refusal:
        loads(text)
    assert "\n" not in str(refusal.value)


class Colour(Enum):
    RED = "r"
    NONE = None
    ODD = object()
    HALF = Fraction(1, 2)


class Level(IntEnum):
    LOW = 1


class Mode(StrEnum):
    FAST = "fast"


class Flags(IntFlag):
    A = 1
    B = 2


@attrs.frozen
class Money:
    amount: Decimal
    _cents: int = 0
    unit: str = attrs.field(default="EUR", alias="of")
    total: int = attrs.field(init=False, default=7)


@dataclasses.dataclass
class Row:
    when: datetime
    money: list[Money]


class Circle(list[Any]):
    pass


Pair = namedtuple("Pair", "a b")
MONEY = b'{"amount":"1.50","cents":0,"of":"EUR","total":7}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["\ud800", "é"], b'["\\ud800","\\u00e9"]'),
        ("é\n", '"é\\n"'.encode()),
        (2**70, b"1180591620717411303424"),
        (Decimal("1.50"), b'"1.50"'),
        (Fraction(1, 3), b'"1/3"'),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), b'"2026-01-31T12:00:00+00:00"'),
        (date(2026, 1, 31), b'"2026-01-31"'),
        (time(12, 30), b'"12:30:00"'),
        (timedelta(days=1, seconds=90), b'"P1DT1M30S"'),
        (PurePosixPath("/a"), b'"/a"'),
        (ip_address("::1"), b'"::1"'),
        (ip_interface("10.0.0.1/8"), b'"10.0.0.1/8"'),
        (ip_network("10.0.0.0/30"), b'"10.0.0.0/30"'),
        (b"\xff\xfe", b'"//4="'),
        (bytearray(b"a"), b'"YQ=="'),
        (memoryview(b"a"), b'"YQ=="'),
        (Colour.RED, b'"r"'),
        (Colour.NONE, b"null"),
        (Colour.ODD, b'"ODD"'),
        (Colour.HALF, b'"1/2"'),
        (Level.LOW, b"1"),
        (Mode.FAST, b'"fast"'),
        (Flags.A | Flags.B, b"3"),
        (Secret("text"), b'"text"'),
        ((1, (2.5, None)), b"[1,[2.5,null]]"),
        (Pair(1, "x"), b'[1,"x"]'),
        ({3}, b"[3]"),
        (iter([date(2026, 1, 31)]), b'["2026-01-31"]'),
        (OrderedDict(a=(1,)), b'{"a":[1]}'),
        (Money(Decimal("1.50")), MONEY),
        (
            Row(datetime(2026, 1, 31), [Money(Decimal("1.50"))]),
            b'{"when":"2026-01-31T00:00:00","money":[' + MONEY + b"]}",
        ),
        (
            {
                1: 1,
                2.5: 2,
                None: 3,
                False: 4,
                Colour.RED: 6,
                date(2026, 1, 31): 7,
                b"a": 8,
            },
            b'{"1":1,"2.5":2,"null":3,"false":4,"r":6,"2026-01-31":7,"YQ==":8}',
        ),
        ({Mode.FAST: [Mode.FAST]}, b'{"fast":["fast"]}'),
    ],
)
def test_a_value_has_one_form(library, value, text):
    if hasattr(value, "__next__"):
        value = [date(2026, 1, 31)]
    assert dumps(value) == text


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": -math.inf}])
def test_a_value_that_json_cannot_hold_is_refused(library, value):
    with pytest.raises(ValueError, match=r"\w"):
        dumps(value)


def test_a_value_that_holds_itself_is_refused(library):
    circle = Circle()
    circle.append(circle)
    with pytest.raises(ValueError, match="nested too deeply"):
        dumps(circle)


@pytest.mark.parametrize("value", [object(), [1j], {(1, 2): 3}, {"a": print}])
def test_a_value_without_a_form_is_refused_with_its_type(library, value):
    with pytest.raises(TypeError, match=r"cannot send a \w+ (as a key )?in JSON"):
        dumps(value)


def test_scalars_of_numpy_are_sent_as_pythons_own(library):
    value = {
        "a": numpy.float64(3.5),
        "b": numpy.int8(-7),
        "c": numpy.bool_(True),
        "d": numpy.str_("x"),
        "e": numpy.array([[1, 2], [3, 4]]),
        "f": numpy.float32(0.5),
        "g": numpy.array(5),
    }
    assert dumps(value) == b'{"a":3.5,"b":-7,"c":true,"d":"x","e":[[1,2],[3,4]],"f":0.5,"g":5}'
    with pytest.raises(ValueError, match="nan"):
        dumps(numpy.float64("nan"))


def test_models_of_other_libraries_are_sent_as_they_write_themselves(library):
    class Model(pydantic.BaseModel):
        when: date
        kind: str = pydantic.Field("x", alias="type")

    class Point(msgspec.Struct):
        x: int
        at: date
        of: Any = None

    value = [Model(when=date(2026, 1, 31), type="x"), Point(1, date(2026, 1, 31), Fraction(1, 2))]
    assert dumps(value) == (
        b'[{"when":"2026-01-31","type":"x"},{"x":1,"at":"2026-01-31","of":"1/2"}]'
    )


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("number", ["1e400", "-1e400", "1.5E+309", "9" * 4301, "-" + "9" * 5000])
@pytest.mark.parametrize("text", ["%s", "[%s]", '{"a": {"b": %s}}'])
def test_a_number_that_is_too_large_is_refused_in_words(number, text):
    with pytest.raises(ValueError, match=r"^a number is too large$"):
        loads(text % number)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(("text", "value"), [("1e308", 1e308), ("1e-400", 0.0), ("-0", 0)])
def test_a_number_at_the_edge_is_read(text, value):
    assert loads(text) == value


@pytest.mark.usefixtures("library")
def test_bytes_that_are_not_text_are_refused_in_words():
    with pytest.raises(ValueError, match=r"^byte 2 is not UTF-8$"):
        loads(b'"\xff"')


@pytest.mark.parametrize("annotation", [Any, object, list[Any], dict[str, object], Decimal])
@pytest.mark.parametrize("value", ["1e400", "[1e400]", '{"a": -1e400}'])
def test_no_handler_of_json_rpc_is_given_infinity(annotation, value):
    app = App(protocol=JsonRpc())

    def show(value):
        return value

    show.__annotations__["value"] = annotation
    app.handler("show")(show)
    request = f'{{"jsonrpc": "2.0", "id": 1, "method": "show", "params": [{value}]}}\n'
    assert '"code":-32700,"message":"Parse error: a number is too large"' in app.ask(request)
