"""Looks at a server again and again, also at one that goes away and comes back.

Light: ``linepool status`` imports it. Standard library alone.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from linepool.errors import SetupError
from linepool.operate.terminal import print_error

_T = TypeVar("_T")


class Looking:
    """A thread that looks at a server: one that does not answer must not keep keys from being read.

    Args:
        look: Asks the server; its SetupError is a result like others.
        interval: Seconds between two looks.
        wake: Called when something was found out.
        first: Seconds until the first of them.
    """

    def __init__(
        self, look: Callable[[], object], interval: float, wake: Callable[[], None], first: float
    ) -> None:
        self._look = look
        self._interval = interval
        self._wake = wake
        self._first = first
        self._found: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        # A daemon: when this process ends, it may wait for a server that is stopped.
        self._thread = threading.Thread(target=self._run, name="looking", daemon=True)

    def __enter__(self) -> Looking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._questions.put(None)

    def found(self) -> list[object]:
        """Return what was found out since the last call; a SetupError tells why nothing was.

        Raises:
            Exception: Another error than SetupError that a look has raised.
        """
        found: list[object] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._found.get_nowait())
        for one in found:
            if isinstance(one, Exception) and not isinstance(one, SetupError):
                raise one
        return found

    def ask(self, question: Callable[[], object]) -> None:
        """Have something else asked; the answer is among what is found out."""
        self._questions.put(question)

    def _run(self) -> None:
        due = time.monotonic() + self._first
        while True:
            question: Callable[[], object] | None = self._look
            with contextlib.suppress(queue.Empty):
                question = self._questions.get(timeout=max(0.001, due - time.monotonic()))
            if question is None:
                return
            try:
                self._found.put(question())
            except Exception as error:  # noqa: BLE001 - raised in the thread that asks for it
                self._found.put(error)
            if question == self._look:
                due = _next(due, self._interval)
            self._wake()


def lasting(look: Callable[[], _T], interval: float, first: float) -> Iterator[_T]:
    """Yield what a server says again and again; while it says nothing, say so once on standard error.

    Args:
        look: Asks it.
        interval: Seconds between two looks.
        first: Seconds until the first of them.
    """
    due = time.monotonic() + first
    is_gone = False
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            found = look()
        except SetupError as error:
            if not is_gone:
                print_error(f"no answer, trying again: {error}")
            is_gone = True
        else:
            is_gone = False
            yield found
        due = _next(due, interval)


def _next(due: float, interval: float) -> float:
    """Return when to look again: after a server that was slow to answer, not at once."""
    return max(due + interval, time.monotonic() + interval / 2)
