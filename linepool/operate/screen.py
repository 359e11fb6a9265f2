"""The screen of a terminal, for what is shown again and again: taken over, and given back as it was.

Light, as ``tables``. Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Self

from linepool.errors import SetupError
from linepool.kernel.pipes import quick_pipe

_ENTER = "\033[?1049h\033[?25l\033[?7l"  # the alternate screen, no cursor, no wrapping
_LEAVE = "\033[?7h\033[?25h\033[?1049l"
_BEGIN, _END = (
    "\033[?2026h\033[H",
    "\033[J\033[?2026l",
)  # a frame is shown as a whole, where that is known
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_STOP = signal.SIGTSTP
_AGAIN = (signal.SIGCONT, signal.SIGWINCH)
_CHUNK = 4096
_SENT = re.compile(r"\033\[[0-?]*[ -/]*[@-~]|\033O.|.", re.DOTALL)  # by one key (ECMA-48)
_KEYS = {
    "\033[A": "up",
    "\033[B": "down",
    "\033OA": "up",
    "\033OB": "down",
    "\033[5~": "page up",
    "\033[6~": "page down",
    "\033": "escape",
    "\r": "enter",
    "\n": "enter",
}


class Ended(Exception):  # noqa: N818 - not an error
    """A signal, or the end of the terminal, ends the program.

    Attributes:
        status: The exit status.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def is_screen() -> bool:
    """Whether there is a terminal to take over: one that is not dumb, for keys and for what is shown."""
    dumb = os.environ.get("TERM", "dumb") in ("", "dumb")
    return sys.stdin.isatty() and sys.stdout.isatty() and not dumb


class Screen:
    """The screen: taken over within a ``with`` block.

    At the end of the block, whatever ends it, the terminal is as it was before.

    Raises:
        SetupError: The terminal cannot be taken over.
    """

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._typed = ""
        try:
            self._before = termios.tcgetattr(self._in)
        except termios.error as error:
            raise SetupError(f"cannot use the terminal: {error}") from None

    def __enter__(self) -> Self:
        self._wake_read, self._wake_write = quick_pipe()
        self._handlers = {
            number: signal.signal(number, _note) for number in (*_ENDS, _STOP, *_AGAIN)
        }
        self._wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError, termios.error):  # it may be gone
            self._give_back()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal."""
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(self._out)
            if found.columns and found.lines:
                return found.columns, found.lines
        found = shutil.get_terminal_size()
        return found.columns, found.lines

    def wake(self) -> None:
        """End a wait for keys. May be called by: other threads."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"\0")

    def show(self, lines: Sequence[str]) -> None:
        """Show lines, which may have colours, in place of what was there.

        Raises:
            Ended: The terminal is gone.
        """
        self._write(_BEGIN + "\r\n".join(f"{line}\033[0m\033[K" for line in lines) + _END)

    def keys(self, timeout: float) -> Iterator[str]:
        """Wait for a key, another size, ``wake``, or the end of a time; yield the keys.

        Raises:
            Ended: A signal says so, or the terminal is gone.
        """
        try:
            ready, _, _ = select.select([self._in, self._wake_read], [], [], max(0.0, timeout))
        except InterruptedError:
            ready = []
        if self._wake_read in ready:
            self._obey(os.read(self._wake_read, _CHUNK))
        if self._in in ready:
            try:
                data = os.read(self._in, _CHUNK)
            except OSError:
                data = b""
            if not data:
                raise Ended(signal.SIGHUP)
            yield from _keys_in(data.decode("utf-8", "replace"))

    def _obey(self, noted: bytes) -> None:
        for number in noted:
            if number in _ENDS:
                raise Ended(number)
            if number == _STOP:
                self._stop()
            elif number == signal.SIGCONT:
                self._take()  # the shell may have had the terminal meanwhile

    def _stop(self) -> None:
        """Stop this process, as ctrl-Z does, and go on when it continues."""
        self._give_back()
        signal.signal(_STOP, signal.SIG_DFL)
        os.kill(os.getpid(), _STOP)
        signal.signal(_STOP, _note)
        self._take()

    def _take(self) -> None:
        tty.setcbreak(self._in, termios.TCSANOW)
        self._write(_ENTER)

    def _give_back(self) -> None:
        with contextlib.suppress(Ended):
            self._write(_LEAVE)
        termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def _write(self, text: str) -> None:
        data = text.encode(sys.stdout.encoding or "utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError:
            raise Ended(signal.SIGHUP) from None


def _note(number: int, stack: FrameType | None) -> None:
    """Do nothing: the number of the signal is in the pipe of ``set_wakeup_fd``."""
    del number, stack


def _keys_in(text: str) -> Iterator[str]:
    """Yield the names of the keys that were pressed, without those that mean nothing here."""
    for sent in _SENT.findall(text):
        if sent in _KEYS or len(sent) == 1:
            yield _KEYS.get(sent, sent)
