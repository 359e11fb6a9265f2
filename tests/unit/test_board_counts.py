"""The counts of connections on the board, while a connection moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from linepool.ipc.board import Board
from linepool.ipc.board.words import HELD, PARKED, SLOTS

ORIGIN = 7


class Moving:
    """Words of the board; when the parker's count is looked at, a connection moves just before or after."""

    def __init__(self, words: Any, at: int) -> None:
        self.words, self._at = words, at
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def __getitem__(self, at: int) -> int:
        if at == self._at:
            self.before()
        value = int(self.words[at])
        if at == self._at:
            self.after()
        return value


class Held:
    """A board on which the parker and the workers have published how many connections they hold."""

    def __init__(self, parked: int, *by_workers: int) -> None:
        board: Any = Board(2)
        board.head[SLOTS] = len(by_workers)
        self.head = board.head = Moving(board.head, PARKED)
        self.origins = board.parker_origins = Moving(board.parker_origins, ORIGIN)
        self.board = board
        self.add_parked(parked)
        for number, count in enumerate(by_workers):
            self.add(number, count)

    def add_parked(self, change: int) -> None:
        self.head.words[PARKED] += change
        self.origins.words[ORIGIN] += change

    def add(self, number: int, change: int) -> None:
        self.board.words(number)[HELD] += change
        self.board.origins(number)[ORIGIN] += change

    def counts(self) -> list[int]:
        return [self.board.connections(), self.board.connections_from(ORIGIN)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("worker", [0, 2])
@pytest.mark.parametrize("to_parker", [True, False])
def test_a_connection_that_moves_while_they_are_counted_is_not_missed(when, worker, to_parker):
    held = Held(2, 1, 0, 1)

    def move() -> None:  # the receiver counts it before the sender no longer does
        nonlocal to_parker
        change = 1 if to_parker else -1
        held.add_parked(change)
        held.add(worker, -change)
        to_parker = not to_parker  # and back, when the other count is taken

    setattr(held.head, when, move)
    setattr(held.origins, when, move)

    assert all(4 <= count <= 6 for count in held.counts())


def test_a_connection_that_moves_once_is_counted_once():
    held = Held(2, 1, 0, 1)

    def move() -> None:
        held.head.after = held.origins.after = lambda: None
        held.add_parked(-1)
        held.add(1, 1)

    held.head.after = move
    assert held.board.connections() == 4
    held.origins.after = move
    assert held.board.connections_from(ORIGIN) == 4


def test_connections_that_stay_are_counted_once():
    assert Held(2, 1, 0, 3).counts() == [6, 6]
