"""``linepool top`` and ``linepool status --watch`` in terminals of their own, with real servers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from linepool.operate.tables import width
from tests.conftest import Launch
from tests.servers import ENVIRONMENT, TIMEOUT, Gate, ServerProcess

SIZES = [(24, 80), (20, 50), (50, 200)]
BEGIN, END = "\033[?2026h\033[H", "\033[J\033[?2026l"
ENTER, LEAVE = "\033[?1049h", "\033[?1049l"
START = "import sys; {}; from linepool.cli import main; sys.exit(main(sys.argv[1:]))"


class Top:
    """A command that shows frames in a terminal."""

    def __init__(
        self,
        *words: str,
        size: tuple[int, int] = (24, 80),
        first: str = "pass",
        environment: dict[str, str] | None = None,
    ) -> None:
        variables = {**ENVIRONMENT, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        for name in ("NO_COLOR", "COLUMNS", "LINES", "LC_ALL", "LC_CTYPE"):
            variables.pop(name, None)
        self.child = pexpect.spawn(
            sys.executable,
            ["-P", "-c", START.format(first), *words],
            timeout=TIMEOUT,
            encoding="utf-8",
            env={**variables, **(environment or {})},
            dimensions=size,
            echo=True,
        )
        self.child.delaybeforesend = None
        self.painted = ""

    def frame(self) -> list[str]:
        """Return the lines of the next frame, without colours."""
        self.child.expect_exact(BEGIN)
        self.child.expect_exact(END)
        self.painted = self.child.before
        text = re.sub(r"\033\[[\d;]*[mK]", "", self.painted).replace("\r", "")
        assert text.replace("\n", "").isprintable()
        return text.split("\n")

    def until(self, holds: Callable[[str], object]) -> list[str]:
        """Return the first frame for whose text something holds."""
        give_up_at = time.monotonic() + TIMEOUT
        while not holds("\n".join(lines := self.frame())):
            assert time.monotonic() < give_up_at, lines
        return lines

    def ended(self) -> tuple[int | None, str]:
        """Return the exit status, and what was written last."""
        self.child.expect(pexpect.EOF)
        self.child.wait()
        return self.child.exitstatus, self.child.before


@contextlib.contextmanager
def top(server: ServerProcess, *words: str, **more) -> Iterator[Top]:
    one = Top("top", "--control", server.control, *words, **more)
    try:
        yield one
    finally:
        one.child.close(force=True)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "linepool", *words],
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def assert_fits(lines: list[str], size: tuple[int, int]) -> None:
    assert len(lines) == size[0]
    assert all(width(line) <= size[1] for line in lines)


# -- what is shown


def test_a_quiet_server_in_terminals_of_all_sizes(launch: Launch):
    server = launch("workshop.py", "--workers", "2:4")
    for size in SIZES:
        with top(server, size=size) as one:
            lines = one.frame()
            assert_fits(lines, size)
            assert lines[0].startswith("workshop  linepool ")
            assert lines[1] == "● No client waits: 0 of 2 workers are busy."
            assert any(line.startswith("pool □□") for line in lines)
            assert "no request runs" in lines
            one.child.send("q")
            assert one.ended()[0] == 0


def test_a_saturated_server_in_terminals_of_all_sizes(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "2")
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(5)]
        for peer in peers:
            peer.send(b"HOLD x\n")
        gate.wait(2)
        server.until(lambda state: state["waiting"] == 3)
        for size in SIZES:
            with top(server, size=size) as one:
                lines = one.until(lambda text: "the pool cannot grow" in text)
                assert_fits(lines, size)
                assert lines[1].rstrip() == "▲ 3 clients wait, and the pool cannot grow."
                assert any(line.startswith("pool ■■") for line in lines)
                running = [line for line in lines if re.search(r"\d +HOLD ", line)]
                assert len(running) == 2
                assert ("┃" in running[0]) == (size[1] >= 60)
        gate.open(5)
        for peer in peers:
            assert peer.line() == "x"


def test_a_stuck_request_is_marked_in_terminals_of_all_sizes(launch: Launch, gate: Gate):
    server = launch(
        "workshop.py", "--workers", "1", "--request-timeout", "0.1", "--kill-grace", "600"
    )
    with server.connect() as peer:
        peer.send(b"CLING\n")
        gate.wait()
        for size in SIZES:
            with top(server, size=size) as one:
                lines = one.until(lambda text: "pool ▲" in text)
                assert_fits(lines, size)
                assert any("CLING" in line and "of 0.1 s" in line for line in lines)
        gate.open()
        assert peer.line()


def test_a_command_that_is_served_and_a_worker_that_dies_are_seen(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    with top(server) as one:
        one.frame()
        for _ in range(5):
            server.ask("ADD 1 2")
        one.until(lambda text: re.search(r"\nADD +█* *\d", text))
        with server.connect() as peer:
            peer.send(b"DIE\n")
            peer.rest()
        one.until(lambda text: "1 worker died or had to be killed" in text)
        one.until(re.compile(r"\n▲ died +\S+ s ago +DIE ran .*SIGKILL").search)


# -- keys


def test_keys(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "2", "--request-timeout", "300")
    with server.connect() as peer, top(server) as one:
        peer.send(b"HOLD x\n")
        gate.wait()
        one.until(lambda text: "┃" in text)
        before = termios.tcgetattr(one.child.child_fd)
        assert not before[3] & termios.ECHO
        for key, seen in [
            ("c", "no request was served"),
            ("w", "┃"),
            ("i", "no incident"),
            ("k", "wait_at_gate"),
            ("\033", "□ idle"),
            ("\r", "wait_at_gate"),
            ("?", "escape: back"),
            ("?", "□ idle"),
            (" ", "paused"),
        ]:
            one.child.send(key)
            one.until(re.compile(re.escape(seen)).search)
        one.child.send(" ")
        one.until(lambda text: "paused" not in text)
        one.child.setwinsize(30, 100)
        one.until(lambda text: len(text.split("\n")) == 30)
        gate.open()
        one.child.send("xq")
        assert one.ended()[0] == 0
        assert peer.line() == "x"


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda child: child.send("q"), 0),
        (lambda child: child.sendintr(), 130),
        (lambda child: child.send("\x1c"), 131),
        (lambda child: os.kill(child.pid, signal.SIGTERM), 143),
        (lambda child: os.kill(child.pid, signal.SIGHUP), 129),
    ],
    ids=["q", "ctrl-C", "ctrl-backslash", "TERM", "HUP"],
)
def test_the_terminal_is_given_back(launch: Launch, end, status):
    server = launch("workshop.py", "--workers", "1")
    ours, theirs = os.openpty()
    expected = termios.tcgetattr(theirs)[3]
    os.close(ours)
    os.close(theirs)
    with top(server) as one:
        one.frame()
        end(one.child)
        exited, written = one.ended()
        assert exited == status
        assert written.endswith(f"\033[?25h{LEAVE}")
        assert "Traceback" not in written
        assert termios.tcgetattr(one.child.child_fd)[3] == expected


def test_the_terminal_is_given_back_after_an_error(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    broken = "import linepool.operate.top.live as live; live.frame = None"
    with top(server, first=broken) as one:
        status, written = one.ended()
    assert status == 1
    assert written.index(LEAVE) < written.index("Traceback")


def test_ctrl_z_stops_it_and_fg_continues_it(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    one = Top(first="pass")
    one.child.close(force=True)
    variables = {**ENVIRONMENT, "TERM": "xterm", "PS1": "$$ ", "ENV": "", "LANG": "C.UTF-8"}
    with contextlib.closing(
        pexpect.spawn(
            "sh", ["-im"], timeout=TIMEOUT, encoding="utf-8", env=variables, dimensions=(24, 80)
        )
    ) as shell:
        one.child = shell
        shell.delaybeforesend = None
        shell.sendline(f"{sys.executable} -P -m linepool top --control {server.control}")
        one.frame()
        shell.send("\x1a")
        shell.expect_exact(LEAVE)
        shell.expect("[Ss]topped")
        shell.sendline("stty -a | grep -o '.icanon'")
        shell.expect(r"[ ;]icanon\r\n")
        shell.sendline("fg")
        shell.expect_exact(ENTER)
        one.frame()
        shell.send("q")
        shell.expect_exact(LEAVE)
        shell.sendline("echo status $?")
        shell.expect_exact("status 0")


# -- servers that are not there


def test_a_server_that_is_started_anew_is_found_again(launch: Launch, tmp_path: Path):
    options = ("--workers", "1", "--control", str(tmp_path / "c"))
    server = launch("workshop.py", *options)
    server.control = str(tmp_path / "c")
    with top(server, "--interval", "0.1") as one:
        one.frame()
        assert server.stop() == 0
        silent = r"\n▲ No answer since \d\d:\d\d:\d\d UTC; trying again\."
        one.until(re.compile(silent).search)
        launch("workshop.py", *options)
        one.until(lambda text: "No client waits" in text)
        one.child.send("q")
        assert one.ended()[0] == 0


def test_without_a_server_nothing_is_taken_over():
    one = Top("top", "--control", "/none")

    status, written = one.ended()
    assert (status, "\033" in written) == (1, False)
    assert "linepool: cannot reach a server at /none" in written


def test_a_server_that_does_not_answer_does_not_keep_keys_from_being_read(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    with top(server, "--interval", "0.1") as one:
        one.frame()
        server.send(signal.SIGSTOP)
        one.child.send("?")
        one.until(lambda text: "escape: back" in text)
        one.child.send("q")
        assert one.ended()[0] == 0
    server.send(signal.SIGCONT)


# -- where there is no screen


def test_without_a_terminal_it_is_shown_once(launch: Launch):
    server = launch("workshop.py", "--workers", "2")
    server.ask("ADD 1 2")
    for words in ([], ["--once"]):
        done = run("top", "--control", server.control, *words, LANG="C.UTF-8")
        assert (done.returncode, done.stderr) == (0, "")
        assert "\033" not in done.stdout
        lines = done.stdout.splitlines()
        assert lines[1] == "● No client waits: 0 of 2 workers are busy."
        assert any(re.match(r"ADD +█+ 100 %", line) for line in lines)
    plain = run("top", "--once", "--control", server.control, LC_ALL="C", PYTHONUTF8="0")
    assert plain.stdout.isascii()
    assert "* No client waits" in plain.stdout


def test_a_dumb_terminal_gets_it_once_and_no_color_means_no_colours(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    with top(server, environment={"TERM": "dumb"}) as one:
        status, written = one.ended()
        assert (status, "\033" in written) == (0, False)
        assert "No client waits" in written
    with top(server, environment={"NO_COLOR": "1"}) as one:
        one.frame()
        assert not re.search(r"\033\[[\d;]*3[0-9]", one.painted)
    with top(server) as one:
        one.frame()
        assert re.search(r"\033\[[\d;]*38;5;", one.painted)


def test_lines_for_a_log(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    words = ["top", "--lines", "--interval", "0.1", "--control", server.control]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "linepool", *words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert server.stop() == 0
        assert process.stderr.readline().startswith("linepool: no answer, trying again: ")
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
    assert all(re.match(r"\S+Z name=workshop state=ready level=ok busy=0 ", one) for one in lines)


@pytest.mark.parametrize(
    ("words", "first", "status", "error"),
    [
        (["--interval", "0"], "pass", 2, "must be a number of seconds from 0.1 to 3600, not '0'"),
        (["--interval", "x"], "pass", 2, "not 'x'"),
        (["--once", "--lines"], "pass", 2, "not allowed with argument"),
        ([], "sys.modules['rich.console'] = None", 1, "pip install 'linepool[top]'"),
    ],
)
def test_a_mistake_is_named(launch: Launch, words, first, status, error):
    server = launch("workshop.py", "--workers", "1")
    with top(server, *words, first=first) as one:
        ended, written = one.ended()
    assert ended == status
    assert error in written
    assert ENTER not in written


def test_without_rich_it_can_be_shown_once(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    with top(server, "--once", first="sys.modules['rich'] = None") as one:
        status, written = one.ended()
    assert status == 0
    assert "No client waits" in written


# -- status --watch


def test_status_is_shown_again_in_a_terminal(launch: Launch):
    server = launch("workshop.py", "--workers", "2:4")
    one = Top("status", "--watch", "0.1", "--control", server.control)
    lines = one.frame()
    assert lines[0].startswith("workshop  ready  up ")
    assert lines[-1] == "q quits"
    server.order("SCALE 3:4")
    one.until(lambda text: "3 of 3:4" in text)
    one.child.setwinsize(6, 40)
    lines = one.until(lambda text: len(text.split("\n")) == 6)
    assert re.fullmatch(r"\d+ more lines", lines[-2])
    one.child.send("q")
    status, written = one.ended()
    assert status == 0
    assert written.endswith(LEAVE)


def test_status_is_printed_again_in_a_pipe(launch: Launch):
    server = launch("workshop.py", "--workers", "2")
    for form, first in ([], "name workshop"), (["--json"], '{"name": "workshop"'):
        words = ["status", "--watch", "0.1", *form, "--control", server.control]
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "linepool", *words],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            found = 0
            for line in process.stdout:
                found += line.startswith(first)
                if found == 3:
                    break
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == 130


def test_a_wrong_interval_and_no_server_are_errors():
    wrong = run("status", "--watch", "never")
    assert wrong.returncode == 2
    assert "must be a number of seconds from 0.1 to 3600, not 'never'" in wrong.stderr
    gone = run("status", "--watch", "--control", "/none")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr.startswith("linepool: cannot reach a server at /none")
