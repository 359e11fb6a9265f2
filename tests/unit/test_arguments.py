"""Arguments: from a handler's annotations to values, usage texts and errors."""

import dataclasses
import json
import math
import sqlite3
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

import attrs
import pytest

import linepool
from linepool import App, JsonRpc, Range, Rest, Session, SetupError, Verb

NOTHING = Rest("")


class Colour(Enum):
    RED = "r"
    GREEN = "g"


class Swapped(Enum):
    UP = "DOWN"
    DOWN = "UP"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Point:
    x: int
    y: int = attrs.field(default=0, validator=attrs.validators.ge(0))


@dataclasses.dataclass
class Size:
    width: int


@attrs.frozen
class Payment:
    source: sqlite3.Connection


@dataclasses.dataclass
class Order:
    number: int
    payments: list[Payment]


def shown(value: Any) -> str:
    return str(value)[:60]


def app_of(*functions: Any) -> App:
    app = App()
    for function in functions:
        app.handler(function)
    return app


def with_hint(hint: Any) -> tuple[App, list[Any]]:
    """Return an app whose command F has one parameter of a type, and the list of its values."""
    values: list[Any] = []

    def f(x: Any) -> None:
        values.append(x)

    f.__annotations__["x"] = hint
    return app_of(f), values


def usage_of(function: Any) -> str:
    return app_of(function).freeze().commands[0].usage


# -- values


@pytest.mark.parametrize(
    ("hint", "word", "value"),
    [
        (str, b"tea", "tea"),
        (str, "größe".encode(), "größe"),
        (str, b"42", "42"),
        (bytes, b"\xe9\x80", b"\xe9\x80"),
        (int, b"42", 42),
        (int, b"-7", -7),
        (int, b"+7", 7),
        (int, b"007", 7),
        (int, b"9" * 400, int("9" * 400)),
        (float, b"2.5", 2.5),
        (float, b"-1e3", -1000.0),
        (float, b"3", 3.0),
        (float, b"inf", math.inf),
        (bool, b"1", True),
        (bool, b"TRUE", True),
        (bool, b"yes", True),
        (bool, b"On", True),
        (bool, b"0", False),
        (bool, b"false", False),
        (bool, b"NO", False),
        (bool, b"off", False),
        (Decimal, b"1.10", Decimal("1.10")),
        (Fraction, b"1/3", Fraction(1, 3)),
        (
            UUID,
            b"12345678-1234-5678-1234-567812345678",
            UUID(int=0x12345678123456781234567812345678),
        ),
        (Path, b"/etc/hosts", Path("/etc/hosts")),
        (PurePath, b"a/b", PurePath("a/b")),
        (PurePosixPath, b"a/b", PurePosixPath("a/b")),
        (date, b"2026-01-31", date(2026, 1, 31)),
        (datetime, b"2026-01-31T12:00:05", datetime(2026, 1, 31, 12, 0, 5)),
        (datetime, b"2026-01-31T12:00:05+00:00", datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)),
        (Colour, b"RED", Colour.RED),
        (Colour, b"green", Colour.GREEN),
        (Colour, b"g", Colour.GREEN),
        (Swapped, b"UP", Swapped.UP),
        (Swapped, b"down", Swapped.DOWN),
        (Level, b"2", Level.HIGH),
        (Level, b"low", Level.LOW),
        (Literal["red", "green"], b"red", "red"),
        (Literal["red", "green"], b"GREEN", "green"),
        (Literal["a", "A"], b"A", "A"),
        (Literal["ab", "AB"], b"Ab", "ab"),
        (Literal[1, 2], b"2", 2),
        (Literal[b"x", b"y"], b"x", b"x"),
        (int | None, b"5", 5),
        (Optional[int], b"6", 6),  # noqa: UP045 - the old spelling
        (int | str, b"5", 5),
        (int | str, b"five", "five"),
        (Union[str, int], b"5", "5"),  # noqa: UP007 - the old spelling
        (Decimal | Colour, b"red", Colour.RED),
        (Annotated[int, Range(1, 100)], b"1", 1),
        (Annotated[int, Range(1, 100)], b"100", 100),
        (Annotated[int, Range(min=0)], b"1000000000000", 1000000000000),
        (Annotated[float, Range(max=1)], b"-0.5", -0.5),
        (Annotated[int, "a note"], b"5", 5),
        (Annotated[int, Range(1, 9)] | None, b"5", 5),
        (Any, b"5", "5"),
        (object, b"5", "5"),
        (list[int], b"[1,2]", [1, 2]),
        (dict[str, int], b'{"a":1}', {"a": 1}),
        (tuple[int, str], b'[1,"b"]', (1, "b")),
        (Point, b'{"x":1,"y":2}', Point(1, 2)),
        (Point, b'{"x":1}', Point(1)),
        (Size, b'{"width":3}', Size(3)),
        (list[Point], b'[{"x":1},{"x":2}]', [Point(1), Point(2)]),
    ],
    ids=shown,
)
def test_a_word_becomes_a_value_of_the_annotated_type(hint, word, value):
    app, values = with_hint(hint)

    assert app.ask(b"f " + word + b"\n") == b"OK\n"
    assert values == [value]
    assert type(values[0]) is type(value)


def test_a_parameter_without_annotation_is_a_str():
    def f(x):
        return repr(x)

    assert app_of(f).ask(b"f 5\n") == b"'5'\n"


@pytest.mark.parametrize(
    ("hint", "word", "message"),
    [
        (str, b"\xe9", r"x must be UTF-8 text, not '\xe9'."),
        (int, b"x", "x must be int, not 'x'."),
        (int, b"1.5", "x must be int, not '1.5'."),
        (int, b"1_000", "x must be int, not '1_000'."),
        (int, b"0x10", "x must be int, not '0x10'."),
        (int, "\u0663".encode(), r"x must be int, not '\xd9\xa3'."),
        (float, b"1,5", "x must be float, not '1,5'."),
        (float, b"1_0", "x must be float, not '1_0'."),
        (bool, b"maybe", "x must be bool (true or false), not 'maybe'."),
        (bool, b"2", "x must be bool (true or false), not '2'."),
        (Decimal, b"1,5", "x must be Decimal such as 12.50, not '1,5'."),
        (Fraction, b"1/0", "x must be Fraction such as 1/3, not '1/0'."),
        (Fraction, b"1e1000000000", "x must be Fraction such as 1/3, not '1e1000000000'."),
        (Fraction, b"1E-1000000000", "x must be Fraction such as 1/3, not '1E-1000000000'."),
        (Fraction, b"1e" + b"9" * 5000, "x must be Fraction such as 1/3, not '1e9"),
        (Decimal, b"1e1000000000", "x must be Decimal such as 12.50, not '1e1000000000'."),
        (
            Annotated[Fraction, Range(0, 1)],
            b"1e4301",
            "x must be Fraction such as 1/3, not '1e4301'.",
        ),
        (UUID, b"12", "x must be UUID such as 12345678-1234-5678-1234-567812345678, not '12'."),
        (Path, b"\xe9", r"x must be Path, not '\xe9'."),
        (date, b"31.1.2026", "x must be date such as 2026-01-31, not '31.1.2026'."),
        (date, b"2026-02-30", "x must be date such as 2026-01-31, not '2026-02-30'."),
        (datetime, b"now", "x must be datetime such as 2026-01-31T12:00:00, not 'now'."),
        (datetime, b"\xe9", r"x must be datetime such as 2026-01-31T12:00:00, not '\xe9'."),
        (Colour, b"blue", "x must be RED or GREEN, not 'blue'."),
        (Literal["red", "green"], b"blue", "x must be red or green, not 'blue'."),
        (Literal[1, 2], b"3", "x must be 1 or 2, not '3'."),
        (int | None, b"x", "x must be int, not 'x'."),
        (int | bool, b"x", "x must be int or bool, not 'x'."),
        (Annotated[int, Range(1, 100)], b"0", "x must be int in 1..100, not '0'."),
        (Annotated[int, Range(1, 100)], b"101", "x must be int in 1..100, not '101'."),
        (Annotated[int, Range(1, 100)], b"x", "x must be int, not 'x'."),
        (Annotated[int, Range(min=0)], b"-1", "x must be int in 0.., not '-1'."),
        (Annotated[float, Range(max=1.5)], b"2", "x must be float in ..1.5, not '2'."),
        (Annotated[float, Range(0, 1)], b"nan", "x must be float in 0..1, not 'nan'."),
        (Annotated[Decimal, Range(0, 1)], b"nan", "x must be Decimal in 0..1, not 'nan'."),
        (Annotated[int, Range(1, 10_000_001)], b"0", "x must be int in 1..10000001, not '0'."),
        (list[int], b"[1", "x must be JSON of list[int]; Expecting ',' at character 3."),
        (Point, b"5", "x must be a JSON object, not 5. "),
        (Point, b'{"x":"q"}', "x.x must be int, not 'q'. "),
        (Point, b'{"x":1,"y":-1}', "x is not valid: 'y' must be >= 0: -1. "),
        (list[int], b"\xe9", "x must be JSON of list[int]; byte 1 is not UTF-8."),
        (list[int], b"[" * 8000, "x must be JSON of list[int]"),
    ],
    ids=shown,
)
def test_an_invalid_word_is_refused_with_what_it_must_be(hint, word, message):
    app, values = with_hint(hint)
    reply = app.ask(b"f " + word + b"\n").decode()

    assert reply.startswith(f"CLIENT_ERROR {message}")
    assert reply.count("\n") == 1
    assert values == []


def test_a_number_with_more_digits_than_python_converts_is_refused():
    app, values = with_hint(int)

    assert app.ask(b"f " + b"9" * 5000 + b"\n").startswith(b"CLIENT_ERROR x must be int, not '999")
    assert values == []


def test_an_invalid_word_is_shown_escaped_and_truncated():
    app, _ = with_hint(int)
    reply = app.ask(b'f "\\n\\x00' + b"y" * 200 + b'"\n')

    assert reply.startswith(rb"CLIENT_ERROR x must be int, not '\x0a\x00yyy")
    assert b"..." in reply
    assert len(reply) < 150


def test_the_usage_follows_the_error_message():
    def add(a: int, b: int) -> int:
        return a + b

    app = app_of(add)

    assert app.ask(b"add 2 3\r\n") == b"5\r\n"
    assert app.ask(b"add 2 x\n") == b"CLIENT_ERROR b must be int, not 'x'. Usage: ADD a:int b:int\n"
    assert app.ask(b"add x y\n") == b"CLIENT_ERROR a must be int, not 'x'. Usage: ADD a:int b:int\n"
    assert app.ask(b"add 2\n") == b"CLIENT_ERROR b is missing. Usage: ADD a:int b:int\n"
    assert app.ask(b"add\n") == b"CLIENT_ERROR a is missing. Usage: ADD a:int b:int\n"
    assert app.ask(b"add 1 2 3\n") == (
        b"CLIENT_ERROR too many arguments: 3 given, at most 2. Usage: ADD a:int b:int\n"
    )


def test_arguments_for_a_command_without_parameters_are_refused():
    def ping() -> str:
        return "pong"

    assert app_of(ping).ask(b"ping x\nping\n") == (
        b"CLIENT_ERROR too many arguments: 1 given, at most 0. Usage: PING\npong\n"
    )


def test_a_client_error_raised_by_the_handler_has_no_usage():
    def half(n: int) -> int:
        if n % 2:
            raise linepool.ClientError("n must be even")
        return n // 2

    assert app_of(half).ask(b"half 3\nhalf 4\n") == b"CLIENT_ERROR n must be even\n2\n"


# -- string annotations


def plant(tree: "Tree", height: "int | None" = None) -> str:
    return f"{tree.name} {height}"


class Tree(Enum):
    OAK = 1
    ELM = 2


def test_annotations_may_be_strings_that_name_types_defined_later():
    app = app_of(plant)

    assert app.ask(b"plant oak 3\nplant elm\n") == b"OAK 3\nELM None\n"
    assert usage_of(plant) == "PLANT tree:OAK|ELM [height:int]"


def test_a_module_with_postponed_annotations_may_define_its_types_last():
    source = (
        "from __future__ import annotations\n"
        "def paint(colour: Colour, *, session: Session, times: int = 1) -> str:\n"
        "    return f'{colour.name} {times} {session.peer}'\n"
        "from enum import Enum\n"
        "from linepool import Session\n"
        "class Colour(Enum):\n"
        "    RED = 1\n"
    )
    names: dict[str, Any] = {"__name__": "later"}
    exec(source, names)

    assert app_of(names["paint"]).ask(b"paint red times 2\n") == b"RED 2 ask\n"


# -- optional arguments


def test_omitted_words_get_their_defaults():
    def f(a: int, b: int = 7, c: str = "x") -> str:
        return f"{a} {b} {c}"

    assert app_of(f).ask(b"f 1\nf 1 2\nf 1 2 y\n") == b"1 7 x\n1 2 x\n1 2 y\n"
    assert app_of(f).ask(b"f 1 y\n") == (
        b"CLIENT_ERROR b must be int, not 'y'. Usage: F a:int [b:int] [c:str]\n"
    )


@pytest.mark.parametrize(
    "hint",
    [int | None, Annotated[int | None, Range(1, 9)], int | str | None],
    ids=shown,
)
def test_a_word_that_may_be_none_may_be_omitted(hint):
    app, values = with_hint(hint)

    assert app.ask(b"f\n") == b"OK\n"
    assert values == [None]


def test_a_default_is_passed_unconverted():
    marker = object()

    def f(a: int = marker) -> bool:  # type: ignore[assignment]
        return a is marker

    assert app_of(f).ask(b"f\n") == b"true\n"


def test_args_take_all_further_words():
    def total(first: int, *others: int) -> int:
        return first + sum(others)

    app = app_of(total)

    assert app.ask(b"total 1\ntotal 1 2\ntotal 1 2 3 4\n") == b"1\n3\n10\n"
    assert app.ask(b"total 1 2 x\n") == (
        b"CLIENT_ERROR others must be int, not 'x'. Usage: TOTAL first:int [others:int ...]\n"
    )


def test_args_follow_words_with_defaults():
    def f(a: int = 1, *rest: str) -> str:
        return f"{a} {rest}"

    assert app_of(f).ask(b"f\nf 2\nf 2 x y\n") == b"1 ()\n2 ()\n2 ('x', 'y')\n"


def test_positional_only_parameters_are_words_too():
    def f(a: int, /, b: int) -> int:
        return a - b

    assert app_of(f).ask(b"f 5 3\n") == b"2\n"


# -- options


def store(
    key: str, value: str = "-", *, ex: int | None = None, nx: bool = False, keep: bool = True
) -> str:
    return f"{key} {value} {ex} {nx} {keep}"


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"store k v", b"k v None False True"),
        (b"store k v ex 10 nx", b"k v 10 True True"),
        (b"store k v NX Ex 10", b"k v 10 True True"),
        (b"store k v keep no", b"k v None False False"),
        (b"store k nx", b"k - None True True"),
        (b"store nx nx", b"nx - None True True"),
        (b"store ex v", b"ex v None False True"),
    ],
)
def test_keyword_only_parameters_are_options(line, reply):
    assert app_of(store).ask(line + b"\n") == reply + b"\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"store k v ex", b"EX needs a value."),
        (b"store k v ex nx", b"ex must be int, not 'nx'."),
        (b"store k v px 1", b"unknown option 'px'; the options are EX, NX, KEEP."),
        (b"store k v nx 1", b"unknown option '1'; the options are EX, NX, KEEP."),
        (b"store k v w", b"unknown option 'w'; the options are EX, NX, KEEP."),
        (b"store", b"key is missing."),
    ],
)
def test_an_invalid_option_is_named_in_the_error(line, message):
    usage = b" Usage: STORE key:str [value:str] [EX ex:int] [NX] [KEEP keep:bool]\n"

    assert app_of(store).ask(line + b"\n") == b"CLIENT_ERROR " + message + usage


def test_an_option_without_a_default_must_be_given():
    def f(*, to: str) -> str:
        return to

    app = app_of(f)

    assert app.ask(b"f to x\n") == b"x\n"
    assert app.ask(b"f\n").startswith(b"CLIENT_ERROR TO is missing.")


# -- injection


def test_injected_parameters_take_no_word_at_any_position():
    def f(session: Session, a: int, verb: Verb, b: int = 2, *, again: Session) -> str:
        return f"{a} {b} {verb} {session.peer} {again is session}"

    app = App()
    app.handler("F", "G")(f)

    assert app.ask(b"f 1\ng 1 3\n") == b"1 2 F ask True\n1 3 G ask True\n"
    assert app.ask(b"f x\n") == b"CLIENT_ERROR a must be int, not 'x'. Usage: F a:int [b:int]\n"


def test_the_verb_is_the_name_that_the_client_used_in_upper_case():
    app = App()

    @app.handler("plus", "minus")
    def either(verb: Verb) -> str:
        return verb

    assert app.ask(b"Plus\nminus\n") == b"PLUS\nMINUS\n"


# -- usage texts


def test_the_usage_shows_every_kind_of_parameter():
    def one(a, b: int, c: Colour, d: Literal["x", "y"] = "x") -> None: ...
    def two(n: Annotated[int, Range(1, 100)], *more: float) -> None: ...
    def three(key: str, size: int, data: bytes = linepool.body("size")) -> None: ...
    def four(to: str, text: Rest) -> None: ...
    def five(text: Rest = NOTHING) -> None: ...
    def six(p: Point, ns: list[int], when: datetime | None, any_: int | str = 1) -> None: ...
    def seven() -> None: ...

    usages = [usage_of(f) for f in (one, two, three, four, five, six, seven)]

    assert usages == [
        "ONE a:str b:int c:RED|GREEN [d:x|y]",
        "TWO n:int(1..100) [more:float ...]",
        "THREE key:str size:int (then size bytes of data)",
        "FOUR to:str text...",
        "FIVE [text...]",
        "SIX p:Point ns:list[int] [when:datetime] [any_:int|str]",
        "SEVEN",
    ]


# -- unsupported signatures


def kwargs(**options: int) -> None: ...
def no_size(data: bytes = linepool.body("size")) -> None: ...
def text_size(size: str, data: bytes = linepool.body("size")) -> None: ...
def optional_size(size: int = 0, data: bytes = linepool.body("size")) -> None: ...
def other_size(length: int, data: bytes = linepool.body("size")) -> None: ...
def number_body(size: int, data: int = linepool.body("size")) -> None: ...
def text_body(size: int, data: str = linepool.body("size")) -> None: ...
def options_and_args(*words: str, flag: bool = False) -> None: ...
def options_and_rest(text: Rest, *, flag: bool = False) -> None: ...
def word_after_rest(text: Rest, word: str) -> None: ...
def two_rests(text: Rest, more: Rest) -> None: ...
def many_rests(*text: Rest) -> None: ...
def required_after_optional(a: int | None, b: int) -> None: ...
def no_such_type(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def no_such_member(a: "linepool.Nowhere") -> None: ...  # type: ignore[name-defined]
def no_type(a: "1 +") -> None: ...  # type: ignore[valid-type]  # noqa: F722
def open_file(a: sqlite3.Connection) -> None: ...
def callback(a: type) -> None: ...
def payment(a: Payment) -> None: ...
def order(a: Order) -> None: ...
def bounded_text(a: Annotated[str, Range(1, 3)]) -> None: ...


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (kwargs, "parameter options: **kwargs are not supported"),
        (no_size, 'body("size") must name a required int parameter of the handler'),
        (text_size, 'body("size") must name a required int parameter of the handler'),
        (optional_size, 'body("size") must name a required int parameter of the handler'),
        (other_size, 'body("size") must name a required int parameter of the handler'),
        (number_body, "parameter data is a data block, so it must be bytes"),
        (text_body, "parameter data is a data block, so it must be bytes"),
        (options_and_args, "option words (keyword-only parameters) cannot follow *args or Rest"),
        (options_and_rest, "parameter flag cannot follow the rest of the line"),
        (word_after_rest, "parameter word cannot follow the rest of the line"),
        (two_rests, "parameter more cannot follow the rest of the line"),
        (many_rests, "parameter text"),
        (
            required_after_optional,
            "parameter b must have a default, because the one before it has one",
        ),
        (no_such_type, "annotation: name 'Nowhere' is not defined"),
        (no_such_member, "annotation: "),
        (no_type, "annotation: "),
        (open_file, "parameter a: nothing provides Connection; register a resource"),
        (callback, "parameter a: unsupported type type"),
        (payment, "parameter a: unsupported type Payment: field source (Connection)"),
        (order, "parameter a: unsupported type Order: field payments.source (Connection)"),
        (bounded_text, "parameter a"),
    ],
)
def test_an_unsupported_signature_is_refused_with_its_location(function, why):
    app = app_of(function)

    with pytest.raises(SetupError) as refusal:
        app.freeze()
    line = function.__code__.co_firstlineno
    assert f"test_arguments.py:{line}: {why}" in str(refusal.value)
    assert str(refusal.value).startswith(f"handler {function.__name__} at ")


def test_a_function_without_a_known_signature_is_refused():
    app = App()
    app.handler("max")(max)

    with pytest.raises(SetupError, match="max"):
        app.freeze()


async def coroutine() -> None: ...


async def stream():
    yield 1


@pytest.mark.parametrize("function", [coroutine, stream])
def test_an_async_function_is_refused_when_it_is_registered(function):
    with pytest.raises(
        SetupError, match=rf"{function.__name__} at .*test_arguments.py:\d+ is async"
    ):
        App().handler(function)


@pytest.mark.parametrize("thing", [Point, 5, None, [], "x y", ""])
def test_an_object_that_is_neither_a_function_nor_a_name_is_refused(thing):
    with pytest.raises(SetupError, match=r"is not a function|cannot be the name of a command"):
        App().handler(thing)


@pytest.mark.parametrize(
    "kind",
    [Rest | None, Optional[Rest], Annotated[Rest | None, "a note"]],  # noqa: UP045
    ids=["union", "optional", "annotated"],
)
def test_the_rest_of_the_line_may_be_optional(kind):
    def note(number: int, text: str | None) -> str:
        return repr((number, text))

    note.__annotations__["text"] = kind
    app, typed = App(), App(protocol=JsonRpc())
    app.handler("NOTE")(note)
    typed.handler("note")(note)

    assert app.ask(b"note 1\nnote 2 a  'b\n") == b'(1, None)\n(2, "a  \'b")\n'
    for params, result in (
        ([1], "(1, None)"),
        ([1, None], "(1, None)"),
        ([1, "a b"], "(1, 'a b')"),
    ):
        message = {"jsonrpc": "2.0", "id": 1, "method": "note", "params": params}
        said = json.loads(typed.ask(json.dumps(message).encode() + b"\n"))
        assert said["result"] == result


def test_the_rest_of_the_line_has_no_other_type():
    app = App()

    @app.handler
    def note(text: Rest | int) -> None: ...

    with pytest.raises(SetupError, match="parameter text: the rest of the line is Rest"):
        app.freeze()


def test_a_class_whose_annotations_cannot_be_resolved_is_refused():
    @attrs.frozen
    class Node:
        children: "list[Nowhere]"  # type: ignore[name-defined] # noqa: F821

    def add(node: Any) -> None: ...

    add.__annotations__["node"] = Node
    app = App()
    app.handler(add)
    with pytest.raises(SetupError, match="parameter node: unsupported type Node: name 'Nowhere'"):
        app.freeze()


# -- secrets


@pytest.mark.parametrize(
    ("hint", "word"),
    [
        (Annotated[int, linepool.Secret], b"s3cret"),
        (Annotated[int, Range(1, 9), linepool.Secret], b"53"),
        (Annotated[Literal["a", "b"], linepool.Secret], b"s3cret"),
        (Annotated[Point, linepool.Secret], b"s3cret"),
        (linepool.Secret, b"s3cret\xe9"),
        (linepool.Secret | None, b"s3cret\xe9"),
    ],
    ids=shown,
)
def test_the_error_about_a_secret_does_not_quote_it(hint, word):
    app, _ = with_hint(hint)
    reply = app.ask(b"F " + word + b"\n")
    assert reply.startswith(b"CLIENT_ERROR x must be ")
    assert word.rstrip(b"\xe9") not in reply.partition(b" Usage: ")[0]


def test_a_secret_is_masked_wherever_it_is_printed_and_is_the_text_itself_for_all_else():
    secret = linepool.Secret("s3cret")
    for text in (str(secret), repr(secret), f"{secret} {secret!r} {secret:>8}", f"{[secret]}"):
        assert "s3cret" not in text
    assert secret == "s3cret"
    assert secret.encode() == b"s3cret"
    assert type(secret.reveal()) is str
    assert secret.reveal() == "s3cret"


def test_a_secret_is_injected_as_text_and_in_a_rest_or_an_option_too():
    got: list[Any] = []

    def f(a: linepool.Secret, *, b: Annotated[bytes, linepool.Secret] = b"hidden") -> None:
        got.append((a.reveal(), b))

    def g(a: int, rest: Annotated[Rest, linepool.Secret]) -> None:
        got.append((a, rest))

    app = app_of(f, g)
    app.ask(b"F x B y\nG 1 the rest\nF z\n")
    assert got == [("x", b"y"), (1, "the rest"), ("z", b"hidden")]
    assert all(command.is_secret for command in app.freeze().commands if command.names[0] in "FG")
    assert b"hidden" not in app.ask(b"HELP F\n")
