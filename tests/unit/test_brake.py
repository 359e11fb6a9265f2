"""The brake: commands that workers died of are refused for a while, and tried again."""

from __future__ import annotations

import math
import time

import pytest

from linepool import App
from linepool.errors import ServerError
from linepool.ipc.board import Board, MasterView, WorkerView
from linepool.pool.brake import Brake
from linepool.service import NO_REQUEST
from linepool.worker.brakes import Brakes


def test_a_command_is_braked_by_its_deaths_within_the_window():
    brake = Brake(3, window=10, pause=5)

    assert [brake.died("A", now) for now in (0, 1, 2)] == [False, False, True]
    assert brake.braked == {"A": 7}
    assert brake.due_at == 7
    assert brake.deaths("A") == 3


def test_deaths_far_apart_do_not_brake_a_command():
    brake = Brake(3, window=10, pause=5)

    assert not any(brake.died("A", now) for now in range(0, 1000, 5))


def test_each_command_has_deaths_of_its_own():
    brake = Brake(2, window=10, pause=5)

    assert [brake.died(name, 0) for name in ("A", "B", "A")] == [False, False, True]
    assert list(brake.braked) == ["A"]


def test_a_death_after_the_pause_brakes_the_command_again():
    brake = Brake(3, window=10, pause=5)
    for now in (0, 1, 2):
        brake.died("A", now)

    assert (brake.release(6.9), brake.release(7)) == ([], ["A"])
    assert brake.due_at == math.inf
    assert brake.died("A", 16)
    assert brake.release(21) == ["A"]
    # It has proved itself for the whole window.
    assert not brake.died("A", 31)


def test_further_deaths_do_not_make_a_pause_longer():
    brake = Brake(2, window=10, pause=5)

    assert [brake.died("A", now) for now in (0, 1, 2, 3)] == [False, True, False, False]
    assert brake.braked == {"A": 6}


def test_no_number_of_deaths_brakes_a_command_if_the_setting_is_0():
    brake = Brake(0, window=10, pause=5)

    assert not any(brake.died("A", 0) for _ in range(100))


def test_a_worker_refuses_a_braked_command_no_longer_than_a_pause():
    board = Board()
    master, worker = MasterView(board), WorkerView(board, 0)
    app = App()

    @app.handler("A" * 80)
    def a() -> str:
        return "done"

    service = app.freeze()
    entry = service.commands[0]
    call = entry.call
    brakes = Brakes(service.entries, worker, pause=1000)
    for until, refused in ((time.monotonic() + 900, True), (1e9, False)):
        master.brake({"B": until, entry.name: until})
        assert worker.brakes() != brakes.seen
        brakes.apply()
        assert worker.brakes() == brakes.seen
        if refused:
            with pytest.raises(ServerError, match=f"{entry.name} is refused for 900 s: "):
                entry.call(NO_REQUEST, None)
        else:
            assert entry.call(NO_REQUEST, None) == "done"
    assert master.slot(0).snapshot().braked == 1
    master.brake({})
    brakes.apply()
    assert entry.call is call
