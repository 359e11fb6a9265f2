"""The tutorial, played: its files are written, its commands run, its requests sent, in the order of the page.

What a block of the page is:

    python, toml   a file, which the first line names; "# FILE, at the end" adds to it
    (no kind)      a terminal: lines that begin with "$ ", and what each shows. "linepool run" is the server;
                   "nc" is a connection, where requests and replies alternate; a reply may come later
    nc             more of the last connection
    log            lines that the server writes, with others between them
    sh             what a test does not do: it installs

In outputs any number may be in the place of a number, except for those of lines of code, and ... is any text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pexpect
import pytest

from linepool.testing import Peer
from tests.examples.test_docs import FENCE
from tests.servers import ENVIRONMENT, ROOT, TIMEOUT

PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
SECTIONS = PAGE.split("\n## ")[1:]
PARTS = [1, 6, 9]
"""The sections that begin a test: in them no connection is left over, and the files are those of the page."""
TOKEN = re.compile(
    r"(?P<place>line \d+|\.py:\d+)|(?P<any>\.\.\.)|(?P<number>\d+(?:\.\d+)?)|(?P<gap> +)|."
)
AS = {"any": r"[^\n]*", "number": r"\d+(?:\.\d+)?", "gap": " +"}
TRIES = 3
SIZE = (24, 80)  # of the terminal
LAST = "END-OF-REPLIES"


def pattern(shown: str) -> str:
    """Return a regular expression for what a line of an output may be."""
    tokens = TOKEN.finditer(shown.strip())
    found = "".join(AS.get(one.lastgroup or "", re.escape(one[0])) for one in tokens)
    return f"[ \t]*{found.replace('workers', 'workers?')}[ \t]*"


def assert_shown(output: str, shown: list[str], of: str) -> None:
    """Compare an output with what the page shows; a line of "..." is any number of lines."""
    lines = [r"(?:[^\n]*\n)*" if line == "..." else f"{pattern(line)}\n" for line in shown]
    text = output.replace("\r\n", "\n")
    assert re.fullmatch("".join(lines), text), f"{of}\n{text}\nThe page shows:\n" + "\n".join(shown)


class NoStackError(Exception):
    """A worker could not write its stack before it was killed, because the machine is busy."""


class Reader:
    """Does what the page says.

    Args:
        directory: The working directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Nothing else listens at this address of this machine, so the port may be that of the page.
        self.host = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
        control = str(directory / "control")
        self.variables = {"LINEPOOL_BIND": f"{self.host}:7000", "LINEPOOL_CONTROL": control}
        self.environment = {**ENVIRONMENT, "NO_COLOR": "1", "TERM": "xterm"}
        self.server: pexpect.spawn | None = None
        self.peer: Peer | None = None
        self.is_waiting = False

    def close(self) -> None:
        """Close the connection, and stop the server."""
        if self.peer is not None:
            self.peer.close()
        if self.server is not None:
            self.server.sendintr()
            self.server.expect(pexpect.EOF)
            self.server.close()
        self.peer = self.server = None

    def does(self, kind: str, block: str) -> None:
        """Do what a block of the page shows."""
        block = block.replace("127.0.0.1:7000", f"{self.host}:7000")
        if kind in ("python", "toml"):
            self.writes(block)
        elif kind == "nc":
            self.talks(block.splitlines())
        elif kind == "log":
            self.reads(block.splitlines())
        elif kind == "":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, *shown = part.splitlines()
                self.types(command, shown)
        else:
            assert kind == "sh"

    def writes(self, block: str) -> None:
        """Write a file."""
        head, text = block.split("\n", 1)
        name, _, how = head.removeprefix("# ").partition(", ")
        with (self.directory / name).open("a" if how else "w", encoding="utf-8") as file:
            file.write(text if how else block)

    def types(self, command: str, shown: list[str]) -> None:
        """Give a command in a terminal."""
        words = command.split()
        if words[:2] == ["linepool", "run"]:
            self.close()
            self.server = pexpect.spawn(
                *(words[0], words[1:]),
                cwd=str(self.directory),
                env={**self.environment, **self.variables},
                dimensions=SIZE,
                encoding="utf-8",
                timeout=TIMEOUT,
            )
            self.reads(shown)
        elif words[0] == "nc":
            if self.peer is not None:
                self.peer.close()
            self.peer = Peer(f"{self.host}:7000")
            self.talks(shown)
        elif words[0] == "cd":
            self.directory /= words[1]
        else:
            has_settings = words[0] == "linepool" and words[1] != "check"
            output = pexpect.spawn(
                *("sh", ["-c", command]),
                cwd=str(self.directory),
                env={**self.environment, **(self.variables if has_settings else {})},
                dimensions=SIZE,
                encoding="utf-8",
                timeout=TIMEOUT,
            ).read()
            assert_shown(output, shown, command)

    def reads(self, shown: list[str]) -> None:
        """Wait until the server has written lines, in this order."""
        assert self.server is not None
        for line in shown:
            try:
                self.server.expect(rf"(?:^|\n){pattern(line)}\r?\n")
            except (pexpect.TIMEOUT, pexpect.EOF):
                pytest.fail(f"the server never wrote: {line}\nbut: {self.server.before}")
            if "stack=none" in str(self.server.after):
                raise NoStackError

    def talks(self, lines: list[str]) -> None:
        """Send requests; each is followed by its reply, unless that comes later."""
        assert self.peer is not None
        left = [*lines]
        while left:
            if self.is_waiting:
                request, self.is_waiting = "the last request", False
            else:
                request = left.pop(0)
                self.peer.send(f"{request}\n".encode())
                if not left:
                    self.is_waiting = True
                    return
            for reply in self.replies():
                assert left, f"{request}: the page shows no {reply}"
                shown = left.pop(0)
                expected = re.escape(shown).replace(re.escape("..."), ".*")
                assert re.fullmatch(expected, reply), f"{request}: {reply}, not {shown}"

    def replies(self) -> list[str]:
        """Return what the server sends until it has answered all requests, or closes the connection."""
        assert self.peer is not None
        self.peer.send(f"{LAST}\n".encode())
        found = []
        while (line := self.peer.line()) and LAST not in line:
            found.append(line)
        return found


def prepared(reader: Reader, blocks: list[tuple[str, str]]) -> None:
    """Have a reader be where these blocks lead: with their files, and the last server that they start."""
    for kind, block in blocks:
        if kind in ("python", "toml"):
            reader.does(kind, block)
    started = [block for _, block in blocks if block.startswith("$ linepool run")]
    if started:
        reader.does("", started[-1])


def play(first: int, directory: Path) -> None:
    """Do what one part of the page says."""
    last = next((part for part in PARTS if part > first), len(SECTIONS) + 1)
    directory.mkdir()
    reader = Reader(directory)
    try:
        prepared(reader, FENCE.findall("".join(SECTIONS[: first - 1])))
        for kind, block in FENCE.findall("".join(SECTIONS[first - 1 : last - 1])):
            reader.does(kind, block)
    finally:
        reader.close()


@pytest.mark.parametrize("first", PARTS)
def test_the_tutorial_is_what_happens(first, tmp_path):
    for number in range(TRIES):
        try:
            play(first, tmp_path / str(number))
        except NoStackError:
            continue
        return
    pytest.fail("no worker that was killed has written its stack")
