"""``linepool call`` at a real server."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool import App, Rest, cli
from linepool.operate.call_command import quoted
from linepool.protocols.text import unquote
from linepool.testing import serve
from tests.examples.test_client_page import PAGE
from tests.examples.test_docs import blocks


def add(a: int, b: int) -> int:
    return a + b


def countdown(start: int) -> Iterator[int]:
    yield from range(start, 0, -1)


def repeat(text: str) -> str:
    return text


def say(text: Rest) -> str:
    return text


def photo() -> bytes:
    return b"a\n\xff"


def nothing() -> None:
    pass


def fact() -> dict[str, Any]:
    return {"a": [1, None], "b": "é"}


@pytest.fixture(scope="module")
def address():
    app = App()
    for handler in (add, countdown, repeat, say, photo, nothing, fact):
        app.handler(handler)
    with serve(app, workers=1) as server:
        yield server.address


@pytest.fixture
def call(address, capfdbinary):
    def run(*words, at=address):
        try:
            status: Any = cli.main(["call", at, *words])
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return run


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["add", "2", "3"], b"5\n"),
        (["add", "-2", "3"], b"1\n"),
        (["ADD 2 3"], b"5\n"),
        (["countdown", "3"], b"3\n2\n1\n"),
        (["countdown", "0"], b""),
        (["--json", "countdown", "2"], b"2\n1\n"),
        (["repeat", "a  b"], b"a  b\n"),
        (["repeat", ""], b"\n"),
        (["repeat", 'it\'s "x" \\'], b'it\'s "x" \\\n'),
        (["--json", "repeat", "two\nlines\xe9"], '"two\\nlines\xe9"\n'.encode()),
        (['say "a  b"'], b'"a  b"\n'),
        (["photo"], b"a\n\xff"),
        (["photo", "--json"], b'"YQr/"\n'),
        (["nothing"], b"OK\n"),
        (["nothing", "--json"], b"null\n"),
        (["fact"], '{"a":[1,null],"b":"\xe9"}\n'.encode()),
    ],
)
def test_what_a_command_returns_is_printed(call, words, out):
    assert call(*words) == (0, out, "")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["fro"], "unknown command 'fro'. HELP lists the commands."),
        (["add", "2"], "b is missing. Usage: ADD a:int b:int"),
        (["add", "2", "x"], "b must be int, not 'x'. Usage: ADD a:int b:int"),
        (["add", "1", "2", "3"], "too many arguments: 3 given, at most 2. Usage: ADD a:int b:int"),
    ],
)
def test_a_mistake_gets_the_servers_own_answer(call, words, error):
    assert call(*words) == (1, b"", f"linepool: {error}\n")


@pytest.mark.parametrize(
    ("at", "words", "status", "error"),
    [
        ("127.0.0.1:1", ["add"], 1, "linepool: cannot connect to 127.0.0.1:1: Connection refused"),
        ("unix:/nowhere", ["add"], 1, "linepool: cannot connect to unix:/nowhere: No such file"),
        (
            "add",
            ["2"],
            2,
            "linepool: the address of the server comes first: linepool call HOST:PORT add",
        ),
        ("a.b", ["2"], 2, "linepool: address must be with a port: a.b:7000; it is HOST:PORT"),
        ("7000", ["--timeout", "0", "add"], 2, "linepool: timeout must be seconds, more than 0"),
        ("7000", [], 2, "linepool call: the following arguments are required: WORD"),
    ],
)
def test_a_wrong_command_line_is_named(call, at, words, status, error):
    got, out, err = call(*words, at=at)
    assert (got, out) == (status, b"")
    assert err.startswith(error)
    assert err.count("\n") == 1


def test_requests_come_from_standard_input(call, monkeypatch):
    given = io.TextIOWrapper(io.BytesIO(b"add 2 3\nadd x 3\n\ncountdown 2\r\n"))
    monkeypatch.setattr(sys, "stdin", given)
    status, out, err = call("-")
    assert (status, out) == (1, b"5\n2\n1\n")
    assert err == "linepool: a must be int, not 'x'. Usage: ADD a:int b:int\n"


def test_the_dialogue_of_the_page_is_what_happens(call):
    (shown,) = [block for block in blocks(PAGE, "") if block.startswith("$ linepool call")]
    for command, answer in re.findall(r"\$ linepool call \S+ (.*)\n((?:[^$].*\n)*)", shown):
        _, out, err = call(*command.split())
        assert out.decode() + err == answer


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_word_is_read_back(word):
    text = quoted(word).encode()
    assert b"\n" not in text
    assert b"\r" not in text
    if text != word.encode():
        assert unquote(text) == word.encode()
    else:
        assert text.split() == [text]
