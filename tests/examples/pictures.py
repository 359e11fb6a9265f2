"""Takes the pictures of the command line in docs/pictures: ``python -m tests.examples.pictures``.

Each is what the real command writes to a terminal of 80 columns. What differs from run to run (times, the
port, the versions) is replaced. ``status`` asks a socket that sends a stored reply, so that the picture shows
more than an idle server.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pexpect
from rich.console import Console
from rich.text import Text

from tests.examples import busy_server
from tests.servers import ENVIRONMENT, ROOT, TIMEOUT, run_server

PICTURES = ROOT / "docs" / "pictures"
SIZE = (60, 80)
_WORKER = {
    "slot": 0,
    "pid": 4714,
    "generation": 3,
    "state": "busy",
    "since_s": 3.04,
    "requests": 184_213,
    "connections": 12,
    "busy_ratio": 0.31,
    "rss_bytes": 17_240_064,
    "command": "MEAN",
    "request_s": 3.04,
    "timeout_s": 30.0,
}
_IDLE = {"state": "idle", "command": None, "request_s": None, "timeout_s": None}
STATE: Mapping[str, Any] = {
    "name": "sums",
    "version": "0.1.0",
    "pid": 4711,
    "uptime_s": 183_600.0,
    "state": "ready",
    "core": "compiled",
    "generation": 3,
    "processes": {
        "master": 4711,
        "loader": 4712,
        "parker": 4713,
        "observer": None,
        "exporter": None,
        "bridge": None,
    },
    "scheme": "shared",
    "listeners": [
        {"address": "127.0.0.1:7000", "backlog": 0, "backlog_max": 1024},
        {"address": "unix:/run/sums.sock", "backlog": 3, "backlog_max": 1024},
    ],
    "limits": {"cpus": 2, "memory_bytes": 536_870_912},
    "tally": {"starting": 0, "idle": 2, "busy": 2, "leaving": 0, "total": 4, "min": 2, "max": 8},
    "connections": {"hot": 31, "parked": 2960},
    "waiting": 0,
    "waiters": {"requests": 0, "oldest_s": None, "topics": []},
    "counters": {
        "requests": 702_518,
        "errors": 12,
        "connections": 48_211,
        "timeouts": 2,
        "kills": 1,
        "crashes": 0,
        "recycled": 0,
        "spawned": 9,
        "retired": 4,
        "refused": 0,
        "braked": 0,
        "dropped": 0,
        "denied": 0,
        "limited": 0,
        "handshakes_failed": 0,
        "saturated_s": 0.0,
    },
    "brakes": [],
    "bans": [],
    "workers": [
        _WORKER,
        {**_WORKER, **_IDLE, "slot": 1, "pid": 4715, "since_s": 0.02, "connections": 9},
        {
            **_WORKER,
            "slot": 2,
            "pid": 4716,
            "since_s": 21.4,
            "request_s": 21.4,
            "command": "COUNTDOWN",
        },
        {
            **_WORKER,
            **_IDLE,
            "slot": 3,
            "pid": 4802,
            "since_s": 65.0,
            "requests": 75,
            "connections": 0,
        },
    ],
}
_TIME = len("2026-11-29T12:00:00.000Z")
_STACK_LINES = 3  # of the stack in the picture of a session: those of the handler
_COLUMN = 12.2  # width of a character in rich's pictures
_TEXT = re.compile(r'(<text [^>]*x=")([\d.]+)("[^>]*textLength=")([\d.]+)("[^>]*>)([^<]*)</text>')
_CHANGING = [
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-11-29T12:00:00.000Z"),
    (r"127\.0\.0\.1:(?!7000)\d+", "127.0.0.1:7000"),
    (r"linepool \d[\w.]*, .*?, CPython [\w.+]+", "linepool 0.1.0, compiled core, CPython 3.14.0"),
    (r"builtin\.py:\d+", "builtin.py:12"),
    (r"\d+ settings at", "60 settings at"),
    (r"\d\d:\d\d:\d\d UTC", "12:00:00 UTC"),
    (r"peer=127\.0\.0\.1:\d+", "peer=127.0.0.1:45120"),
    (r"\bid=[0-9a-f]+", "id=fb0ee540f64f"),
]


def pictures() -> dict[str, str]:
    """Return the pictures, as SVG, by name."""
    with tempfile.TemporaryDirectory() as name:
        control = os.path.join(name, "control")
        with _answering(control, json.dumps(STATE)):
            status = _written("status", "--control", control)
        top = _top(os.path.join(name, "top"))
        return {
            "session": _picture("nc 127.0.0.1 7000", _session(name)),
            "help": _picture("linepool --help", _written("--help")),
            "check": _picture(
                "linepool check examples/sums.py -w 2:8",
                _written("check", "examples/sums.py", "-w", "2:8"),
            ),
            "status": _picture("linepool status", status),
            "top": _picture("linepool top", top),
            "start": _picture("linepool run examples/sums.py -w 2:8", _log_of_a_start(control)),
        }


def main() -> None:
    """Write the pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, svg in pictures().items():
        (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")


def _terminal(*words: str, size: tuple[int, int] = SIZE) -> pexpect.spawn:
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "PYTHON_COLORS": "0"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    environment["LC_ALL"] = "C.UTF-8"
    return pexpect.spawn(
        sys.executable,
        ["-m", "linepool", *words],
        cwd=ROOT,
        env=environment,
        dimensions=size,
        timeout=TIMEOUT,
        encoding="utf-8",
        echo=False,
    )


def _written(*words: str) -> str:
    """Return what a command writes to a terminal."""
    child = _terminal(*words)
    text: str = child.read()
    child.close()
    assert child.exitstatus == 0, text
    return text


def _top(control: str) -> str:
    """Return the frame of a busy server that ``linepool top`` shows after some looks."""
    with busy_server.answering(control):
        child = _terminal("top", "--interval", "0.1", "--control", control, size=(28, 80))
        child.delaybeforesend = None
        try:
            frame = ""
            while busy_server.LAST not in re.sub(r"\033\[[\d;]*m", "", frame):
                child.expect_exact("\033[?2026h\033[H")
                child.expect_exact("\033[J\033[?2026l")
                frame = child.before.replace("\033[K", "")
            child.send("q")
            child.expect(pexpect.EOF)
        finally:
            child.close(force=True)
    return frame.replace("\r\r\n", "\r\n")


def _log_of_a_start(control: str) -> str:
    """Return what a server writes until it is ready, and when it is stopped by ctrl-C."""
    user = ["--user", "root"] if os.geteuid() == 0 else []
    words = ["run", "examples/sums.py", "-w", "2:8", "-b", "127.0.0.1:0", "--control", "off", *user]
    child = _terminal(*words)
    try:
        child.expect("ready: 2 workers\r\n")
        started: str = child.before + child.after
        child.sendintr()
        stopped: str = child.read()
    finally:
        child.close(force=True)
    return f"{started}^C\r\n{stopped}"


def _session(directory: str) -> str:
    """Return the README's dialogue in a terminal, and what its server logs of the request that hangs."""
    asked = ["add 2 3", "add 2 x", "spin", "add 20 22"]
    shown = []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    path = Path(directory, "sums.py")
    path.write_text(code, encoding="utf-8")
    with run_server(path, path.parent, "--workers", "1") as server:
        words = ["nc", "127.0.0.1", str(server.port)]
        child = pexpect.spawn(words[0], words[1:], timeout=TIMEOUT, encoding="utf-8", echo=False)
        for line in asked:
            child.sendline(line)
            child.expect("(.*)\r\n")
            shown += [line, child.match[1]]
        child.close()
        server.wait_for("while True")
        log = server.text
    stack = log[log.index(" WARNING request overdue") - _TIME :].splitlines()[: _STACK_LINES + 1]
    stack = [line.replace(f"{path.parent}/", "").replace(f"{ROOT}/", "") for line in stack]
    return "\r\n".join([*shown, "^C", "\033[1m$ tail server.log\033[0m", *stack])


@contextlib.contextmanager
def _answering(path: str, reply: str) -> Iterator[None]:
    """Have a control socket send one reply to its only client."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(TIMEOUT)

        def answer() -> None:
            client, _ = listener.accept()
            with client, client.makefile("rb") as asked:
                asked.readline()
                client.sendall(reply.encode() + b"\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


def _picture(command: str, text: str) -> str:
    """Return a terminal with a command and what it writes, as SVG without references to other files."""
    for pattern, fixed in _CHANGING:
        text = re.sub(pattern, fixed, text)
    console = Console(record=True, width=SIZE[1], file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"\033[1m$ {command}\033[0m"))
    console.print(Text.from_ansi(text.replace("\r\n", "\n").rstrip("\n")), soft_wrap=False)
    svg = console.export_svg(title="linepool", unique_id="terminal")
    svg = re.sub(r"@font-face \{.*?\n    \}\n", "", svg, flags=re.DOTALL)
    return _TEXT.sub(_without_leading_blanks, svg)


def _without_leading_blanks(found: re.Match[str]) -> str:
    """Return a text of the picture that begins with its first letter: some programs drop blanks before it."""
    start, x, between, length, end, text = found.groups()
    kept = re.sub(r"^(?: |&#160;)+", "", text)
    blanks = text[: len(text) - len(kept)].replace("&#160;", " ")
    shift = len(blanks) * _COLUMN
    return f"{start}{float(x) + shift:g}{between}{float(length) - shift:g}{end}{kept}</text>"


def keys(state: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """Return the keys of a state, and those of its parts."""
    parts = [
        state,
        *(value for value in state.values() if isinstance(value, dict)),
        state["workers"][0],
    ]
    return [list(part) for part in parts]


if __name__ == "__main__":
    main()
