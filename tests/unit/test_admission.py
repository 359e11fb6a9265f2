"""Limits of connections, with counts that are read while connections move."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from linepool.settings import Settings
from linepool.worker.admission import Admission

SERVICE = SimpleNamespace(service=SimpleNamespace(refusal=str.encode))


class Board:
    """What each look at the number of connections, of all clients or of one address, reads."""

    def __init__(self, total: list[int], of_address: list[int]) -> None:
        self.total, self.of_address, self.refused = total, of_address, 0

    def has_room_for(self, held: int, most: int) -> bool:
        return False

    def connections(self) -> int:
        return self.total.pop(0)

    def connections_from(self, origin: int) -> int:
        return self.of_address.pop(0)

    def count_refused(self) -> None:
        self.refused += 1


def admission(board: Board) -> Admission:
    settings = Settings(max_connections=10, max_connections_per_address=5)
    context: Any = SimpleNamespace(board=board, settings=settings, of=lambda name: SERVICE)
    return Admission(context)


def test_a_client_is_served_if_a_connection_was_only_counted_twice_while_it_moved():
    board = Board(total=[10, 10, 9], of_address=[5, 4])

    assert admission(board).refusal(("192.0.2.1", 1), 7, "main") == b""

    assert (board.total, board.of_address, board.refused) == ([], [], 0)


@pytest.mark.parametrize(
    ("total", "of_address", "why"),
    [
        ([10] * 11, [0], "too many connections"),
        ([9] * 2, [5] * 11, "too many connections from your address"),
    ],
)
def test_a_limit_that_stays_reached_refuses_and_the_next_client_costs_one_look(
    total, of_address, why
):
    board = Board(total, of_address)
    gate = admission(board)

    for _ in range(2):
        assert gate.refusal(("192.0.2.1", 1), 7, "main") == why.encode()

    assert board.refused == 2
