"""The request that this process serves, as far as the calls that its handler makes depend on it."""

from __future__ import annotations

import os
import threading
from typing import Protocol as Interface


class InFlight(Interface):
    """What a worker knows of its request."""

    @property
    def overdue_ns(self) -> int:
        """When it is overdue, on the monotonic clock; 0: never, or nothing is in flight."""

    @property
    def line(self) -> bytes:
        """The beginning of its line; b"": there is none."""


request: InFlight | None = None
"""That of this process; None: the process is not a worker."""

_thread = 0


def serve(view: InFlight) -> None:
    """Have this process be a worker, whose handlers run in the present thread."""
    global request, _thread
    request, _thread = view, threading.get_ident()


def overdue_ns() -> int:
    """Return when the request of this thread is overdue, on the monotonic clock; 0: never, or none is."""
    if request is None or threading.get_ident() != _thread:
        return 0
    return request.overdue_ns


def line() -> bytes:
    """Return the beginning of the line of this thread's request; b"": there is none."""
    if request is None or threading.get_ident() != _thread:
        return b""
    return request.line


def _forget() -> None:
    """Begin anew in a forked process: what the handler has forked outlives its request."""
    global request  # noqa: PLW0603 - as above
    request = None


os.register_at_fork(after_in_child=_forget)
