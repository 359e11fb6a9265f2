"""``linepool shell`` in a terminal of its own, with prompt_toolkit and without it."""

from __future__ import annotations

import enum
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pexpect
import pytest

from linepool import App, Range, Secret, Session, body
from linepool.testing import serve
from tests.examples.test_client_page import PAGE
from tests.examples.test_docs import blocks
from tests.servers import TIMEOUT, Gate

app = App("shop")
START = "import sys; {}; from linepool.cli import main; sys.exit(main(sys.argv[1:]))"
WITHOUT = "sys.modules['prompt_toolkit'] = None"


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@app.handler
def add(a: int, b: Annotated[int, Range(1, 100)] = 1) -> int:
    """Add two whole numbers."""
    return a + b


@app.handler
def paint(colour: Colour, *, twice: bool = False, to: Colour = Colour.RED) -> str:
    return f"{colour.name} {twice} {to.name}"


@app.handler
def countdown(start: int, gate: str = "") -> Iterator[int]:
    yield from range(start, 0, -1)
    if gate:
        Path(f"{gate}.bell").write_text(f"{os.getpid()} ")
        with open(gate, "rb", buffering=0) as waiting:
            waiting.read(1)


@app.handler
def login(pin: Secret) -> str:
    return "hello"


@app.handler
def put(name: str, size: int, data: bytes = body("size")) -> str:
    return f"{name} {size} {data!r}"


@pytest.fixture(scope="module")
def server():
    with serve(app, workers=2) as running:
        yield running


class Shell:
    """A shell in a terminal."""

    def __init__(
        self,
        address: str,
        home: Path,
        *,
        is_plain: bool,
        words: tuple[str, ...] = (),
        password: str = "",
    ) -> None:
        self.prompt = f"{address}>"
        start = START.format(WITHOUT if is_plain else "pass")
        environment = {
            "HOME": str(home),
            "XDG_STATE_HOME": "",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "TERM": "xterm",
        }
        self.child = pexpect.spawn(
            sys.executable,
            ["-c", start, "shell", address, *words],
            timeout=TIMEOUT,
            encoding="utf-8",
            env={**os.environ, **environment},
            dimensions=(24, 200),
        )
        self.child.delaybeforesend = None
        if password:
            self.child.expect_exact("password of ann: ")
            self.child.waitnoecho()
            self.child.send(f"{password}\r")
            self.child.expect_exact(self.prompt)
            assert password not in self.child.before
        else:
            self.child.expect_exact(self.prompt)

    def ask(self, typed: str, expected: str) -> None:
        """Type a line, and wait for what is printed and the next prompt."""
        self.child.send(f"{typed}\r")
        self.child.expect_exact(expected)
        self.child.expect_exact(self.prompt)


@pytest.fixture(params=["prompt_toolkit", "readline"])
def shell(server, tmp_path, request):
    one = Shell(server.address, tmp_path, is_plain=request.param == "readline")
    try:
        yield one
    finally:
        one.child.close(force=True)


def test_a_session(shell, tmp_path):
    shell.ask("add 2 3", "5\r\n")
    shell.ask("ADD 2 x", "error: b must be int, not 'x'. Usage: ADD a:int [b:int(1..100)]\r\n")
    shell.ask("fro", "error: unknown command 'fro'. HELP lists the commands.\r\n")
    shell.ask("countdown 3", "3\r\n2\r\n1\r\n")
    shell.ask("put a 3", "the shell cannot send data blocks, such as data; a stub can\r\n")
    shell.ask("help add", "  b  int(1..100); default 1\r\n")
    shell.ask("help ad", "unknown command 'ad'; did you mean ADD?\r\n")
    shell.ask("help", "help                                      list the commands, or explain one")
    shell.ask("login s3cret", "hello\r\n")
    shell.child.sendeof()
    shell.child.expect(pexpect.EOF)
    shell.child.wait()
    assert shell.child.exitstatus == 0
    kept = (tmp_path / ".local/state/linepool/shell_history").read_text()
    assert kept.splitlines()[0] == "add 2 3"
    assert "s3cret" not in kept


def test_a_password_is_asked_for_and_shown_nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv("LINEPOOL_PASSWORD", raising=False)
    vault = App("vault")
    vault.authenticate(lambda user, password: password == "s3cret")

    @vault.handler
    def whoami(session: Session) -> str:
        return str(session.user)

    with serve(vault, workers=1) as server:
        words = ("--user", "ann")
        shell = Shell(server.address, tmp_path, is_plain=True, words=words, password="s3cret")
        shell.ask("whoami", "ann\r\n")
        shell.ask("auth bob s3cret", "OK\r\n")
        shell.ask("whoami", "bob\r\n")
        shell.child.sendeof()
        shell.child.expect(pexpect.EOF)
    kept = (tmp_path / ".local/state/linepool/shell_history").read_text()
    assert kept.splitlines()[0] == "whoami"
    assert "s3cret" not in kept


def test_words_are_completed(shell):
    shell.child.send("pai\t g\t TW\t")
    shell.ask("", "GREEN True RED\r\n")
    shell.child.send("paint red to gr\t")
    shell.ask("", "RED False GREEN\r\n")


def test_an_earlier_line_comes_back(shell):
    shell.ask("add 2 3", "5\r\n")
    shell.child.send("\x1b[A\b4")
    shell.ask("", "6\r\n")


def test_several_lines_are_called_one_after_the_other(shell):
    shell.child.send("\x1b[200~add 1 1\nadd 2 2\n\x1b[201~\r")
    shell.child.expect_exact("2\r\n4\r\n")
    shell.child.expect_exact(shell.prompt)
    shell.child.send("add 3 3\radd 4 4\r")
    shell.child.expect_exact("6\r\n")
    shell.child.expect_exact("8\r\n")


def test_an_interrupt_ends_the_call_and_not_the_shell(shell, tmp_path):
    with Gate(tmp_path / "gate") as gate:
        shell.child.send(f"countdown 2 {gate.path}\r")
        shell.child.expect_exact("2\r\n1\r\n")
        gate.wait()
        shell.child.sendintr()
        shell.child.expect_exact("interrupted; the connection is closed\r\n")
        shell.child.expect_exact(shell.prompt)
        shell.ask("add 2 3", "5\r\n")
    shell.child.send("add 7")
    shell.child.expect_exact(
        "7"
    )  # an interrupt that comes between prompt and read is seen at the next key
    shell.child.sendintr()
    shell.child.expect_exact(shell.prompt)
    shell.ask("add 2 4", "6\r\n")
    shell.child.send("exit\r")
    shell.child.expect(pexpect.EOF)


def test_it_connects_again(tmp_path):
    with serve(app, workers=1, bind=f"unix:{tmp_path}/socket") as first:
        shell = Shell(first.address, tmp_path, is_plain=True, words=("--json",))
        shell.ask("paint red", '"RED False RED"\r\n')
    shell.ask("add 2 3", "error: cannot connect to")
    other = App("other")
    other.handler("more")(add)
    with serve(other, workers=1, bind=f"unix:{tmp_path}/socket"):
        shell.ask("more 2 3", "5\r\n")
        shell.child.send("mo\t")
        shell.ask("2 4", "6\r\n")
    shell.child.close(force=True)


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["127.0.0.1:1"], 1, "linepool: cannot connect to 127.0.0.1:1: Connection refused\r\n"),
        (["add"], 2, "linepool: address must be with a port: add:7000"),
        ([], 2, "linepool shell: the following arguments are required: ADDRESS"),
    ],
)
def test_a_mistake_is_named(words, status, error):
    child = pexpect.spawn(sys.executable, ["-m", "linepool", "shell", *words], timeout=TIMEOUT)
    child.expect_exact(error)
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == status


def test_the_page_shows_what_happens(tmp_path):
    (shown,) = [one for one in blocks(PAGE, "") if one.startswith("$ linepool shell")]
    sums = App("sums")

    @sums.handler
    def add(a: int, b: int) -> int:
        return a + b

    @sums.handler
    def countdown(start: int) -> Iterator[int]:
        yield from range(start, 0, -1)

    with serve(sums, workers=1) as server:
        shell = Shell(server.address, tmp_path, is_plain=True)
        for turn in shown.split("127.0.0.1:7000> ")[1:]:
            typed, _, answer = turn.partition("\n")
            shell.ask(typed, answer.replace("\n", "\r\n"))
        shell.child.close(force=True)


def test_without_a_terminal_each_line_is_a_request(server):
    done = subprocess.run(
        [sys.executable, "-m", "linepool", "shell", server.address],
        input="add 2 3\n\nadd x 1\ncountdown 2\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stdout) == (1, "5\n2\n1\n")
    assert re.fullmatch(r"linepool: a must be int, not 'x'\. Usage: .*\n", done.stderr)
