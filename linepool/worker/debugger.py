"""``breakpoint()`` in a worker: pdb at the server's terminal, or a line in the log that says why not.

Runs in workers. They are in the background of the terminal, where a plain pdb could not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from linepool import forked
from linepool.ipc.board import WorkerView

log = logging.getLogger("linepool")


def install(board: WorkerView, master: int) -> None:
    """Have ``breakpoint()`` use the server's terminal, unless the user has chosen another debugger.

    Args:
        board: Where the clock of the request in flight stops while the user types.
        master: The master's pid.
    """

    def hook(*_: object, **__: object) -> None:
        frame = sys._getframe(1)
        terminal = _open_terminal()
        if terminal is None or forked.depth:
            log.warning(
                "breakpoint ignored at=%s:%d why='the server has no terminal'; to use the debugger start"
                " it in one, or call app.ask(b'...') in a script",
                frame.f_code.co_filename,
                frame.f_lineno,
            )
        else:
            _debugger(terminal, board, master).set_trace(frame)

    if "PYTHONBREAKPOINT" not in os.environ and sys.breakpointhook is sys.__breakpointhook__:
        sys.breakpointhook = hook


def _open_terminal() -> int | None:
    """Return a descriptor of the controlling terminal if the server was started with it as its input."""
    if not sys.stdin or sys.stdin.closed or not os.isatty(sys.stdin.fileno()):
        return None
    with contextlib.suppress(OSError):
        return os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    return None


def _debugger(terminal: int, board: WorkerView, master: int) -> Any:
    """Return a debugger at a terminal."""
    import pdb  # noqa: PLC0415 - heavy, and seldom needed

    class Debugger(pdb.Pdb):
        def interaction(self, *args: Any, **options: Any) -> None:
            ran_ns = board.pause(time.monotonic_ns())
            try:
                with _foreground(terminal, master):
                    super().interaction(*args, **options)
            finally:
                board.resume(time.monotonic_ns(), ran_ns)

    reader = open(terminal)  # noqa: SIM115 - closed with the debugger, when nothing is traced any more
    writer = open(os.dup(terminal), "w")  # noqa: SIM115
    return Debugger(stdin=reader, stdout=writer, nosigint=True, readrc=False)


@contextlib.contextmanager
def _foreground(terminal: int, master: int) -> Iterator[None]:
    """Have the keyboard of a terminal, one worker at a time; then the master has it again."""
    fcntl.flock(terminal, fcntl.LOCK_EX)
    # A process of the background may do this because it ignores TTOU.
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(terminal, os.getpgid(master))
        fcntl.flock(terminal, fcntl.LOCK_UN)
