"""Signals to workers, by pidfd. Used by the master alone; the only place where a worker is killed.

A pid can belong to a stranger a moment after its process was reaped; a pidfd cannot.
"""

from __future__ import annotations

import contextlib
import os
import signal


class Process:
    """A child process, from its fork until it is reaped."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # Safe from reuse of the pid: the child is not reaped before this object reaps it.
        self.pidfd = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to a process that is gone already, it does nothing."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> int | None:
        """Return how the process ended (exit status, or minus the signal), or None: it lives.

        After that only ``close`` may be called.
        """
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.pidfd)
