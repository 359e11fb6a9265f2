"""The prompt of ``linepool shell``: by prompt_toolkit if that is installed, otherwise by readline."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from linepool.operate.shell_words import Commands

_MOST_LINES = 1000


class History:
    """The lines that were typed, in a file of the user's; if it cannot be written, it is left as it is."""

    def __init__(self) -> None:
        state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        self._file = Path(state, "linepool", "shell_history")
        self.lines: list[str] = []
        with suppress(OSError):
            text = self._file.read_text(encoding="utf-8", errors="replace")
            self.lines = text.splitlines()[-_MOST_LINES:]

    def add(self, line: str) -> None:
        """Add a line, unless it is the last one."""
        if self.lines[-1:] == [line]:
            return
        self.lines.append(line)
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            data = f"{line}\n".encode(errors="backslashreplace")
            with open(os.open(self._file, flags, 0o600), "ab") as file:
                file.write(data)


def prompt_of(shown: str, commands: Callable[[], Commands], lines: list[str]) -> Callable[[], str]:
    """Return what asks for lines: it returns what was typed, which may be several.

    It raises EOFError at the end of the input, and KeyboardInterrupt for Ctrl-C.

    Args:
        shown: What stands before what is typed.
        commands: Returns the commands of the app as they are known now.
        lines: Those that were typed before; more may be added.
    """
    try:
        from linepool.operate.shell_toolkit import prompt  # noqa: PLC0415 - an extra, and heavy
    except ImportError:
        return _by_readline(shown, commands, lines)
    return prompt(shown, commands, lines)


def _by_readline(
    shown: str, commands: Callable[[], Commands], lines: list[str]
) -> Callable[[], str]:
    try:
        import readline  # noqa: PLC0415 - only for a terminal
    except ImportError:
        return lambda: input(shown)
    found: list[str] = []

    def complete(_: str, state: int) -> str | None:
        if state == 0:
            line = readline.get_line_buffer()[: readline.get_endidx()]
            found[:] = [f"{one.word} " for one in commands().candidates(line)]
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("tab: complete")
    readline.set_auto_history(False)

    def ask() -> str:
        readline.clear_history()
        for line in lines:
            readline.add_history(line)
        return input(shown)

    return ask
