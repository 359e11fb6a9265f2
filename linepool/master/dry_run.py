"""The dry run of a program that is to take over: it is started, reads the state, and says that it could.

Runs in the master, which goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.pipes import quick_pipe
from linepool.kernel.program import Program
from linepool.kernel.signals import signal_at_parents_end, signal_name, signals_blocked
from linepool.kernel.way_back import VARIABLE

CAN = "can take over: linepool "
"""What the program says, followed by its version."""

_LONGEST = 30.0  # seconds; a busy machine, and no compiled files
_KEPT_BYTES = 4096  # of what the program says
_READS = 16  # of so many bytes at once; a pipe holds no more
_END_WAIT = 1.0  # seconds for a killed program to end


class DryRun:
    """A program that tries whether it could take over.

    Args:
        program: The program.
        told: What it is told; JSON.
        state: The descriptor of the state, of which it gets a copy.
        selector: The master's.
        on_end: Called with the version of linepool that can take over and "", or with "" and why it cannot.

    Attributes:
        give_up_at: When ``give_up`` is to be called, on the monotonic clock.

    Raises:
        OSError: There are no descriptors or processes left.
    """

    def __init__(
        self,
        program: Program,
        told: Mapping[str, Any],
        state: int,
        selector: selectors.BaseSelector,
        on_end: Callable[[str, str], None],
    ) -> None:
        self.give_up_at = time.monotonic() + _LONGEST
        self._on_end = on_end
        self._selector = selector
        self._said = b""
        reader, writer = quick_pipe()
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, reader)
            try:
                with signals_blocked() as before:
                    pid = os.fork()
                    if pid == 0:
                        signal_at_parents_end(signal.SIGKILL)
                        signal.pthread_sigmask(signal.SIG_SETMASK, before)
                        _become(program, {**told, "state": state, "dry": True}, state, writer)
            finally:
                os.close(writer)
            undo.callback(os.waitpid, pid, 0)
            undo.callback(os.kill, pid, signal.SIGKILL)
            self._process = ChildProcess(pid)
            undo.pop_all()
        self._reader = reader
        selector.register(reader, selectors.EVENT_READ, self._hear)
        selector.register(self._process.pidfd, selectors.EVENT_READ, self._ended)

    def give_up(self) -> None:
        """End a program that takes too long."""
        self.close()
        self._on_end("", f"it takes longer than {_LONGEST:g} s{self._last_words(': ')}")

    def close(self) -> None:
        """End it, and close everything."""
        self._process.kill()
        self._process.is_dead(_END_WAIT)
        self._process.reap()
        self._forget()

    def abandon(self) -> None:
        """Close this process's copies, in a new helper process."""
        self._process.close()
        os.close(self._reader)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READS):
                chunk = os.read(self._reader, _KEPT_BYTES)
                if not chunk:
                    self._selector.unregister(self._reader)
                    break
                self._said = (self._said + chunk)[-_KEPT_BYTES:]

    def _ended(self) -> None:
        status = self._process.reap()
        if status is None:
            return
        if self._reader in self._selector.get_map():
            self._hear()
        self._forget()
        last = self._last_words()
        if status == 0 and last.startswith(CAN):
            self._on_end(last.removeprefix(CAN), "")
        elif status == 0:
            self._on_end("", f"it does not know how to take over{self._last_words(': ')}")
        else:
            how = f"exit status {status}" if status > 0 else f"signal {signal_name(-status)}"
            self._on_end("", last or how)

    def _last_words(self, prefix: str = "") -> str:
        """Return the last line that it has said, with a prefix; "": it has said nothing."""
        lines = self._said.decode("utf-8", "replace").split("\n")
        found = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return prefix + found.removeprefix("linepool: ") if found else ""

    def _forget(self) -> None:
        for descriptor in (self._reader, self._process.pidfd):
            if descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)
        self.abandon()


def _become(program: Program, told: Mapping[str, Any], state: int, output: int) -> NoReturn:
    """Become the program, in the new process; it gets no other descriptors."""
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.set_blocking(output, True)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.set_inheritable(state, True)
        program.execute({VARIABLE: json.dumps(told)})
    except OSError as error:
        place = error.filename or program.directory
        os.write(2, f"cannot start {place}: {error.strerror}\n".encode(errors="replace"))
    finally:
        os._exit(1)
