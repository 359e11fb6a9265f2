"""JSON-RPC 2.0: the specification's examples, and what it leaves to the server."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from linepool import App, Bad, ClientError, JsonRpc, Limits, Range, ServerError, Session, SetupError
from linepool.testing import assert_split_invariant
from tests.fuzz.targets import Target

# Section 7 of the specification: the request, and the response (None: no response).
SPECIFICATION = [
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        {"result": 19, "id": 1},
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        {"result": -19, "id": 2},
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        {"result": 19, "id": 3},
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        {"result": 19, "id": 4},
    ),
    ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', {"error": -32601, "id": "1"}),
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', {"error": -32700, "id": None}),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', {"error": -32600, "id": None}),
    (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]',
        {"error": -32700, "id": None},
    ),
    ("[]", {"error": -32600, "id": None}),
    ("[1]", [{"error": -32600, "id": None}]),
    ("[1,2,3]", [{"error": -32600, "id": None}] * 3),
    (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
        '{"foo": "boo"},'
        '{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
        '{"jsonrpc": "2.0", "method": "get_data", "id": "9"}]',
        [
            {"result": 7, "id": "1"},
            {"result": 19, "id": "2"},
            {"error": -32600, "id": None},
            {"error": -32601, "id": "5"},
            {"result": ["hello", 5], "id": "9"},
        ],
    ),
    (
        '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
        None,
    ),
]


class Colour(Enum):
    RED = "red"
    GREEN = "green"


@frozen
class Point:
    x: int
    y: int = 0


def service(**options) -> App:
    app = App(protocol=JsonRpc(**options))
    seen: list[object] = []

    @app.handler
    def subtract(minuend: int, subtrahend: int) -> int:
        """Subtract."""
        return minuend - subtrahend

    @app.handler("sum", "notify_sum")
    def total(*numbers: int) -> int:
        return sum(numbers)

    @app.handler("update", "notify_hello")
    def update(*values: int) -> None:
        seen.extend(values)

    @app.handler
    def get_data() -> list[object]:
        return ["hello", 5]

    @app.handler("seen")
    def show() -> list[object]:
        return seen

    return app


def short(answer):
    """Check the version and remove it; reduce an error to its code."""
    if isinstance(answer, list):
        return [short(one) for one in answer]
    assert answer.pop("jsonrpc") == "2.0"
    if "error" in answer:
        assert isinstance(answer["error"]["message"], str)
        answer["error"] = answer["error"]["code"]
    return answer


def ask(app: App, *lines: object):
    """Return the responses to these lines."""
    sent = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    return [json.loads(line) for line in app.ask(sent.encode()).splitlines()]


def call(app: App, method: str, params: object = None, number: object = 1):
    message = {"jsonrpc": "2.0", "method": method, "id": number}
    (answer,) = ask(app, message if params is None else {**message, "params": params})
    return short(answer)


@pytest.mark.parametrize(("sent", "wanted"), SPECIFICATION, ids=range(len(SPECIFICATION)))
def test_the_examples_of_the_specification(sent, wanted):
    answers = ask(service(), sent)
    assert [short(answer) for answer in answers] == ([] if wanted is None else [wanted])


def test_notifications_are_executed():
    app = service()
    notes = [{"jsonrpc": "2.0", "method": "update", "params": [n]} for n in range(3)]
    ask(app, notes[0], notes[1:])
    assert call(app, "seen")["result"] == [0, 1, 2]


@pytest.mark.parametrize("framing", ["lines", "headers"])
def test_cuts_change_nothing(framing):
    for sent, _ in SPECIFICATION:
        data = sent.encode()
        head = b"Content-Length: %d\r\nContent-Type: x\r\n\r\n" % len(data)
        script = head + data if framing == "headers" else data + b"\r\n"
        assert_split_invariant(service(framing=framing), script)


def test_messages_with_headers():
    data = b'{"jsonrpc": "2.0", "method": "sum", "params": [1], "id": 1}'
    app = service(framing="headers")
    answer = b'{"jsonrpc":"2.0","result":1,"id":1}'
    wanted = b"Content-Length: %d\r\n\r\n%b" % (len(answer), answer)
    for name in (b"Content-Length", b"content-length"):
        assert app.ask(name + b": %d\r\n\r\n%b" % (len(data), data)) == wanted
    for wrong in (
        b"Content-Length: x\r\n\r\n",
        b"Foo: 1\r\n\r\n",
        b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ):
        assert b"-32600" in app.ask(wrong + data)
        assert app.ask(wrong + data).count(b"Content-Length") == 2


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "nul",
        '{"a": NaN}',
        "[" * 100_000,
        "\ufeff{}",
        '{"a": ' + "1" * 5000 + "}",
        "[Infinity]",
    ],
)
def test_invalid_json_gets_a_parse_error_and_the_next_line_is_served(line):
    first, second = ask(service(), line, {"jsonrpc": "2.0", "method": "sum", "id": 1})
    assert short(first) == {"error": -32700, "id": None}
    assert short(second) == {"result": 0, "id": 1}


def test_bytes_that_are_not_utf_8_get_a_parse_error():
    assert b"-32700" in service().ask(b'{"jsonrpc": "2.0", "method": "\xff", "id": 1}\n')


@pytest.mark.parametrize("number", ["a", 7, -1.5, None, "", 10**30, "\ud800"])
def test_an_id_is_returned_unchanged(number):
    assert call(service(), "sum", number=number) == {"result": 0, "id": number}


@pytest.mark.parametrize("number", [True, [], {}])
def test_an_id_of_another_kind_is_invalid(number):
    assert call(service(), "sum", number=number) == {"error": -32600, "id": None}


@pytest.mark.parametrize("params", ["x", 5, True])
def test_params_must_be_a_list_or_an_object(params):
    assert call(service(), "sum", params) == {"error": -32600, "id": 1}


def test_batches_can_be_refused():
    assert short(ask(service(batch=False), [{"jsonrpc": "2.0", "method": "sum", "id": 1}])[0]) == {
        "error": -32600,
        "id": None,
    }


def test_a_batch_of_more_calls_than_its_limit_is_one_invalid_request():
    app = service(max_batch=3)
    one = {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}

    (answer,) = ask(app, [one] * 4)

    assert answer["error"]["message"] == "Invalid Request: a batch may have 3 calls at most"
    assert ask(app, [one] * 3) == []
    assert call(app, "seen")["result"] == [7, 7, 7]


def test_the_calls_after_the_limit_of_a_batch_s_replies_are_not_run():
    app = service(max_batch_bytes=100)
    update = {"jsonrpc": "2.0", "method": "update", "params": [7], "id": "x" * 60}

    (answers,) = ask(app, [update] * 4)

    assert [one.get("error", {}).get("message") for one in answers] == [
        *(None, None),
        *["not run: the replies before it reach 100 bytes, the limit of a batch"] * 2,
    ]
    assert call(app, "seen")["result"] == [7, 7]


def test_the_error_of_a_structured_value_names_ten_mistakes():
    app = App(protocol=JsonRpc())

    @app.handler
    def put(items: list[int]) -> int:
        return len(items)

    (few, many) = ask(
        app,
        *(
            {"jsonrpc": "2.0", "method": "put", "params": [["a"] * size], "id": 1}
            for size in (11, 100_000)
        ),
    )

    for answer in (few, many):
        said = answer["error"]["message"]
        assert said.startswith(
            "Invalid params: items[0] must be int, not 'a'; items[1] must be int"
        )
        assert "items[9] must be int, not 'a'; ... Usage" in said
        assert "items[10]" not in said


def test_a_long_line_in_small_pieces_takes_linear_time():
    size = 2**22
    protocol = service().freeze(Limits(max_body_bytes=size)).open_protocol()
    for _ in range(size // 64):
        protocol.feed(b" " * 64)
        assert protocol.next_request() is None
    protocol.feed(b"[]\n")
    assert protocol.next_request() is not None


def test_a_message_that_is_too_long_closes_the_connection():
    protocol = service().freeze(Limits(max_body_bytes=100)).open_protocol()
    protocol.feed(b" " * 102)
    bad = protocol.next_request()
    assert isinstance(bad, Bad)
    assert bad.close
    assert b"-32600" in bad.reply


def test_an_incomplete_message_gets_a_parse_error():
    assert b"-32700" in service().ask(b'{"jsonrpc"')


@pytest.mark.parametrize(
    ("hint", "good", "value", "bad"),
    [
        (int, 5, 5, [1.5, "5", True, None]),
        (float, 5, 5.0, ["5", False]),
        (str, "x", "x", [5, None]),
        (bool, True, True, [1, "true"]),
        (int | None, None, None, ["x"]),
        (Literal["a", 1], "a", "a", [True, "b"]),
        (Colour, "red", Colour.RED, ["blue", 1]),
        (Colour, "GREEN", Colour.GREEN, []),
        (Decimal, "1.10", Decimal("1.10"), ["x", True]),
        (date, "2026-01-31", date(2026, 1, 31), ["x", 5]),
        (UUID, "12345678123456781234567812345678", UUID("12345678123456781234567812345678"), ["x"]),
        (Annotated[int, Range(1, 3)], 3, 3, [0, 4, "x"]),
        (list, [1, "x"], [1, "x"], [5]),
        (dict, {"a": 1}, {"a": 1}, [[]]),
        (list[int], [1, 2], [1, 2], [["x"], [True], 5]),
        (dict[str, float], {"a": 1}, {"a": 1.0}, [{"a": "x"}]),
        (Point, {"x": 1}, Point(1), [{"y": 1}, {"x": "1"}, 5]),
        (bytes, "w6k=", "é".encode(), [5, "é", "w6k"]),
    ],
    ids=str,
)
def test_values_are_checked_against_annotations(hint, good, value, bad):
    app = App(protocol=JsonRpc())
    seen = []

    def take(it):
        seen.append(it)

    take.__annotations__ = {"it": hint}
    app.handler(take)
    assert call(app, "take", [good])["result"] is None
    assert call(app, "take", {"it": good})["result"] is None
    assert seen == [value, value]
    assert [type(one) for one in seen] == [type(value)] * 2
    for wrong in bad:
        assert call(app, "take", [wrong]) == {"error": -32602, "id": 1}


def test_a_wrong_argument_is_named():
    (answer,) = ask(service(), '{"jsonrpc":"2.0","method":"subtract","params":[1,"x"],"id":1}')
    assert answer["error"]["message"] == (
        "Invalid params: subtrahend must be int, not 'x'. Usage: subtract minuend:int subtrahend:int"
    )


@pytest.mark.parametrize(
    "params", [[1], [1, 2, 3], {"minuend": 1}, {"minuend": 1, "subtrahend": 2, "z": 3}]
)
def test_too_few_or_too_many_arguments_are_invalid(params):
    assert call(service(), "subtract", params)["error"] == -32602


def test_errors_of_handlers_have_codes_and_data():
    app = App(protocol=JsonRpc())

    @app.handler
    def fail(how: str) -> float:
        if how == "code":
            raise ClientError("gone", code=404, data={"id": 7})
        if how == "client":
            raise ClientError("no")
        if how == "server":
            raise ServerError("later", code=-32050)
        return float("nan")

    first, *_ = ask(app, '{"jsonrpc":"2.0","method":"fail","params":["code"],"id":1}')
    assert first["error"] == {"code": 404, "message": "gone", "data": {"id": 7}}
    assert call(app, "fail", ["client"])["error"] == -32000
    assert call(app, "fail", ["server"])["error"] == -32050
    assert call(app, "fail", ["nan"])["error"] == -32603


def test_results_of_many_kinds_are_json():
    app = App(protocol=JsonRpc())
    results = [Point(1, 2), Colour.RED, Decimal("1.5"), date(2026, 1, 31), {1}, b"x", "a\nb"]
    app.handler("all")(lambda: results)

    @app.handler
    def count():
        yield from range(3)

    assert call(app, "all")["result"] == [
        {"x": 1, "y": 2},
        "red",
        "1.5",
        "2026-01-31",
        [1],
        "eA==",
        "a\nb",
    ]
    assert call(app, "count")["result"] == [0, 1, 2]
    (batch,) = ask(app, [{"jsonrpc": "2.0", "method": "count", "id": 1}])
    assert batch[0]["result"] == [0, 1, 2]


def test_a_failure_in_a_batch_costs_only_its_own_call():
    app = service()
    app.handler("crash")(lambda: 1 / 0)
    (batch,) = ask(app, [{"jsonrpc": "2.0", "method": m, "id": m} for m in ("crash", "sum")])
    assert short(batch) == [{"error": -32603, "id": "crash"}, {"result": 0, "id": "sum"}]


def test_method_names_are_case_sensitive_and_rpc_is_reserved():
    assert call(service(), "SUM")["error"] == -32601
    app = service()
    app.handler("rpc.mine")(lambda: None)
    with pytest.raises(SetupError, match="reserved"):
        app.freeze()


def test_rpc_discover_describes_the_service():
    app = service(title="maths")

    @app.handler
    def move(
        to: Point, by: Annotated[int, Range(1, 9)] = 1, *, colour: Colour | None = None
    ) -> list[int]:
        """Move a point.

        Somewhere else.
        """
        return [to.x, by]

    found = call(app, "rpc.discover")["result"]
    assert found["info"]["title"] == "maths"
    methods = {method["name"]: method for method in found["methods"]}
    assert methods["sum"]["paramStructure"] == "by-position"
    assert methods["move"]["summary"] == "Move a point."
    to, by, colour = methods["move"]["params"]
    assert to["schema"] == {"$ref": "#/components/schemas/Point"}
    assert found["components"]["schemas"]["Point"]["required"] == ["x"]
    assert by["schema"] == {"type": "integer", "minimum": 1, "maximum": 9, "default": 1}
    assert not by["required"]
    assert colour["schema"]["anyOf"][0]["enum"] == ["red", "green"]
    assert methods["move"]["result"]["schema"] == {"type": "array", "items": {"type": "integer"}}
    assert "x-idempotent" not in methods["move"]


def test_rpc_discover_says_what_may_be_called_twice():
    app = service()

    @app.handler("read", idempotent=True)
    def read(key: str) -> str:
        return key

    methods = {one["name"]: one for one in call(app, "rpc.discover")["result"]["methods"]}
    assert methods["read"]["x-idempotent"] is True


def test_one_handler_serves_lines_and_json():
    def power(base: int, exponent: int = 2, *, session: Session) -> int:
        session["last"] = value = int(base**exponent)
        return value

    lines, rpc = App(), App(protocol=JsonRpc())
    for app in (lines, rpc):
        app.handler(power)
    assert lines.ask(b"power 3\n") == b"9\n"
    assert call(rpc, "power", [3])["result"] == 9


@given(st.binary(max_size=200))
def test_any_bytes_get_replies_in_json(data):
    for line in service().ask(data + b"\n").splitlines():
        json.loads(line)


TARGET = Target(service().freeze(), ())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda c: (
            st.lists(c)
            | st.dictionaries(st.text() | st.sampled_from(["jsonrpc", "method", "id", "params"]), c)
        ),
    )
)
def test_no_json_causes_an_internal_error(message):
    said = TARGET.replies([json.dumps(message).encode() + b"\n"])
    assert b"-32603" not in said


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000])
@pytest.mark.parametrize("method", ["sum", "foobar"])
def test_an_id_that_no_reply_could_repeat_is_a_parse_error(method, number):
    request = f'{{"jsonrpc":"2.0","method":"{method}","id":{number}}}'
    one = json.loads(service().ask(request.encode() + b"\n"))
    batched = json.loads(service().ask(f"[{request}]\n".encode()))

    assert one == batched
    assert one["error"] == {"code": -32700, "message": "Parse error: a number is too large"}
    assert one["id"] is None
