"""Shows a server again and again, in a terminal that it takes over, until a key or a signal ends that."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from linepool.errors import SetupError
from linepool.operate.looking import Looking, lasting
from linepool.operate.screen import Screen
from linepool.operate.top.history import History, View
from linepool.operate.top.layout import Choice, chosen, frame
from linepool.operate.top.lines import Line
from linepool.operate.top.looks import Asker, Look
from linepool.operate.top.sections import stacks
from linepool.operate.top.signs import Signs

_FIRST_S = 0.2  # from the first look to the second: rates need two


class Live:
    """A server in a terminal.

    Args:
        asker: Looks at the server.
        first: What it has seen.
        interval: Seconds between two looks.
        signs: The characters that the terminal shows.
        paint: Makes lines in colours of them.
    """

    def __init__(
        self,
        asker: Asker,
        first: Look,
        interval: float,
        signs: Signs,
        paint: Callable[[Sequence[Line]], list[str]],
    ) -> None:
        self._asker = asker
        self._interval = interval
        self._signs = signs
        self._paint = paint
        self._history = History()
        self._history.add(first)
        self._choice = Choice()
        self._view: View | None = None
        self._stacks: list[Line] = []
        self._trouble = ""

    def run(self) -> None:
        """Show it until the key q.

        Raises:
            Ended: A signal has ended it.
        """
        first = min(_FIRST_S, self._interval)
        with (
            Screen() as screen,
            Looking(self._asker.look, self._interval, screen.wake, first) as looking,
        ):
            self._looking = looking
            while True:
                for key in screen.keys(3600.0):
                    if key == "q":
                        return
                    self._press(key)
                self._take(looking.found())
                if self._view:
                    size = screen.size
                    shown = frame(
                        self._view, size, self._signs, self._choice, self._stacks, self._trouble
                    )
                    screen.show(self._paint(shown))

    def _take(self, found: Sequence[object]) -> None:
        """Take what has been found out."""
        for one in found:
            if isinstance(one, Look):
                self._trouble = ""
                self._history.add(one)
            elif isinstance(one, SetupError):
                self._trouble = str(one)
            elif isinstance(one, list):
                self._stacks = one
        if found and not (self._choice.paused and self._view):
            self._view = self._history.view(of_all_time=self._choice.of_all_time)

    def _press(self, key: str) -> None:
        before, self._choice = self._choice, chosen(self._choice, key)
        now = self._choice
        if now.page == "stacks" != before.page:
            self._stacks = [[("asking the workers", "faint")]]
            self._looking.ask(lambda: stacks(self._asker.stacks()))
        if self._view and (now.of_all_time != before.of_all_time or now.paused < before.paused):
            self._view = self._history.view(of_all_time=now.of_all_time)


def one_view(asker: Asker) -> View:
    """Look at a server twice; return the view.

    Raises:
        SetupError: There is none.
    """
    history = History()
    history.add(asker.look())
    time.sleep(_FIRST_S)
    history.add(asker.look())
    return history.view(of_all_time=True)


def as_lines(asker: Asker, interval: float, shown: Callable[[View], str]) -> None:
    """Print a line for each look, for logs, until it is interrupted; say so when the server is gone.

    Raises:
        SetupError: There was no server from the beginning.
    """
    history = History()
    history.add(asker.look())
    for look in lasting(asker.look, interval, min(_FIRST_S, interval)):
        history.add(look)
        print(shown(history.view()), flush=True)
