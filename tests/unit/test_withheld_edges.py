"""Edges that workers need not tell at once: what the master knows is as if they had told them all."""

import math
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.ipc.board import Board, MasterView, WorkerView
from linepool.ipc.status_pipe import StatusPipe
from linepool.master.withheld import WithheldEdges
from linepool.pool.history import History
from linepool.pool.scoreboard import Scoreboard, WorkerState
from linepool.pool.status import State, unpack
from linepool.settings import Settings, Workers
from linepool.worker.edges import Edges

MS = 1_000_000
SECOND = 1000 * MS
WINDOW = 2.0
GENERATION = 1


class Pool:
    """Workers and their master on one board, with a clock that the test moves."""

    def __init__(self, count: int, workers: Workers) -> None:
        self.settings = Settings(workers=workers, shrink_window=WINDOW, min_spare=1)
        page = Board()
        self.board = MasterView(page)
        self.scoreboard = Scoreboard()
        self.history = History(self.settings, 0)
        self.exact = History(self.settings, 0)
        self.withheld = WithheldEdges(self.board, self.scoreboard, self.history)
        self.now_ns = 0
        self.told = 0
        self._pipes: list[StatusPipe] = []
        self._edges = []
        self._busy = [False] * count
        for slot in range(count):
            self.board.new_worker(slot)
            self.scoreboard.spawned(slot, os.getpid(), GENERATION, 0)
            self._pipes.append(StatusPipe())
            view = WorkerView(page, slot)
            self._edges.append(Edges(view, self._pipes[slot], slot, GENERATION))
            view.changed(State.READY, 0)
            for state in (State.READY, State.IDLE):
                self.exact.worker_changed(slot, state, 0)
                self.history.worker_changed(slot, state, 0)
            self.scoreboard.workers[slot].state = State.IDLE

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()

    def edge(self, slot: int) -> None:
        """Have a worker change its state."""
        busy = self._busy[slot] = not self._busy[slot]
        (self._edges[slot].busy if busy else self._edges[slot].idle)(self.now_ns)
        state = State.TAKEN if busy else State.IDLE
        self.exact.worker_changed(slot, state, self.now_ns)

    def turn(self) -> int:
        """Have the master do its turn; return how many records were told."""
        records = []
        for slot, pipe in enumerate(self._pipes):
            records += self.scoreboard.heard(slot, pipe.drain())
        for record in sorted(records, key=lambda one: one.at_ns):
            self.history.worker_changed(record.slot, record.state, record.at_ns)
        self.told += len(records)
        self.withheld.catch_up(len(records), self.now_ns)
        self.withheld.plan(self.scoreboard.tally(), self.settings, self.now_ns)
        return len(records)

    def quick_edges(self, count: int, slot: int = 0) -> None:
        """Have one worker change its state again and again, a millisecond apart."""
        for _ in range(count):
            self.now_ns += MS
            self.edge(slot)


@pytest.fixture
def pool(request: pytest.FixtureRequest):
    count, low, high = getattr(request, "param", (3, 1, 4))
    made = Pool(count, Workers(low, high))
    yield made
    made.close()


def test_few_edges_are_told(pool: Pool):
    for _ in range(10):
        pool.quick_edges(2)
        assert pool.turn() == 2
        pool.now_ns += 100 * MS


def test_many_edges_that_change_nothing_are_not_told_and_the_states_are_known(pool: Pool):
    pool.quick_edges(11)
    pool.turn()
    pool.quick_edges(101)

    assert pool.turn() == 0
    assert pool.scoreboard.tally().idle == 3
    pool.quick_edges(1)
    pool.turn()
    assert pool.scoreboard.tally().busy == 1


def test_an_edge_that_leaves_fewer_workers_idle_than_before_is_told_at_once(pool: Pool):
    pool.quick_edges(11)
    pool.turn()
    pool.edge(1)

    assert pool.turn() == 1
    pool.edge(2)
    assert pool.turn() == 1
    assert pool.history.none_idle_for(pool.now_ns + SECOND) == 1.0


def test_while_none_is_idle_and_the_pool_may_grow_each_edge_is_told(pool: Pool):
    pool.quick_edges(11)
    pool.edge(1)
    pool.edge(2)
    pool.turn()
    pool.quick_edges(20)

    assert pool.turn() == 20
    assert pool.history.none_idle_for(pool.now_ns) == pool.exact.none_idle_for(pool.now_ns)


def test_a_worker_that_goes_quiet_is_known_to_be_busy_when_the_period_ends(pool: Pool):
    pool.quick_edges(11)
    pool.turn()
    assert pool.withheld.due_at < (pool.now_ns + SECOND) / 1e9
    pool.quick_edges(4)
    pool.now_ns = math.ceil(pool.withheld.due_at * 1e9)

    assert pool.turn() == 0
    assert pool.scoreboard.tally().busy == 1


@pytest.mark.parametrize("pool", [(5, 1, 6)], indirect=True)
def test_a_busy_time_is_over_though_the_master_looks_more_than_once_in_a_period(pool: Pool):
    pool.quick_edges(12)
    for slot in (1, 2, 3):
        pool.quick_edges(1, slot)
    pool.turn()
    for slot in (1, 2, 3):
        pool.quick_edges(1, slot)
    for _ in range(500):
        pool.quick_edges(10)
        pool.turn()

    assert pool.exact.idle_min(pool.now_ns) == 4
    assert pool.history.idle_min(pool.now_ns) == 4


def test_when_no_more_edges_come_all_are_told_again(pool: Pool):
    pool.quick_edges(10)
    for _ in range(4):
        pool.turn()
        if pool.withheld.due_at < float("inf"):
            pool.now_ns = math.ceil(pool.withheld.due_at * 1e9)
    assert pool.withheld.due_at == float("inf")
    pool.quick_edges(1)

    assert pool.turn() == 1


@pytest.mark.parametrize("pool", [(2, 2, 2)], indirect=True)
def test_in_a_pool_of_fixed_size_no_edge_is_told_while_many_come(pool: Pool):
    pool.quick_edges(10)
    pool.turn()
    pool.quick_edges(1, slot=0)
    pool.quick_edges(1, slot=1)

    assert pool.turn() == 0
    assert pool.scoreboard.tally().busy == 2


@pytest.mark.parametrize("pool", [(2, 2, 2)], indirect=True)
def test_a_pool_whose_size_was_fixed_begins_a_new_window(pool: Pool):
    pool.now_ns = 10 * SECOND
    pool.quick_edges(10)
    pool.turn()
    pool.settings = Settings(workers=Workers(1, 4), shrink_window=WINDOW)
    pool.turn()

    assert pool.history.idle_min(pool.now_ns + SECOND) is None
    assert pool.history.idle_min(pool.now_ns + 2 * SECOND) is not None


def test_a_state_that_is_not_plausible_is_not_believed(pool: Pool):
    pool.quick_edges(10)
    pool.turn()
    view = WorkerView(pool.board.page, 0)
    for state, at_ns in ((State.TAKEN, 2**63), (99, pool.now_ns + 1)):
        view.changed(state, at_ns)  # type: ignore[arg-type]
        pool.now_ns += MS
        pool.turn()

    assert pool.scoreboard.workers[0].state is State.IDLE
    assert pool.scoreboard.workers[0].malformed == 0


def test_a_told_edge_is_a_record(pool: Pool):
    pool.edge(0)

    (record,), malformed = unpack(pool._pipes[0].drain())
    assert (record.slot, record.state, record.at_ns, malformed) == (0, State.TAKEN, 0, 0)


@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 40)), max_size=150),
)
def test_no_minimum_of_idle_workers_and_no_peak_of_busy_ones_is_missed(count, low, steps):
    """Each step: which worker changes, milliseconds since the last, and until the master's turn."""
    pool = Pool(count, Workers(min(low, count), count + 1))
    try:
        for slot, pause, turn in steps:
            pool.now_ns += pause * MS + 1
            pool.edge(slot % count)
            if turn > 10 or pool.now_ns >= pool.withheld.due_at * 1e9:
                pool.turn()
        pool.turn()
        now_ns = max(pool.now_ns, round(WINDOW * 1e9))

        least = pool.history.idle_min(now_ns)
        exact = pool.exact.idle_min(now_ns)
        assert least is not None
        assert exact is not None
        assert least <= exact
        assert pool.history.busy_max(now_ns) >= pool.exact.busy_max(now_ns)
        assert pool.scoreboard.tally().busy == sum(pool._busy)
        pool.now_ns += (
            SECOND  # the last period ends; nothing is remembered for longer than it should be
        )
        for _ in range(3):
            pool.turn()
            pool.now_ns += 100 * MS
        now_ns = pool.now_ns + round(WINDOW * 1e9)
        assert pool.history.idle_min(now_ns) == pool.exact.idle_min(now_ns)
        assert pool.history.busy_max(now_ns) == pool.exact.busy_max(now_ns)
    finally:
        pool.close()


def test_an_edge_in_the_moment_in_which_a_period_ends_is_not_lost(pool: Pool, monkeypatch):
    while pool.withheld.due_at == math.inf:
        pool.quick_edges(10)
        pool.turn()
    pool.quick_edges(1)  # it is busy now; that it is idle again need not be told
    pool.turn()
    publish = pool.board.withhold_edges

    def publish_late(until_ns: int, floor: int) -> None:
        pool.now_ns += 1  # the master has looked at the clock before
        pool.edge(0)
        publish(until_ns, floor)

    before = pool.told
    monkeypatch.setattr(pool.board, "withhold_edges", publish_late)
    pool.withheld.resume(pool.now_ns)
    monkeypatch.undo()
    pool.now_ns += 5 * MS
    pool.turn()

    assert pool.told == before
    assert pool.scoreboard.workers[0].state is State.IDLE


class _Interrupted:
    """Words of the board, whose worker changes its state after some of the master's reads."""

    def __init__(self, words: memoryview, reads: int, change: Callable[[], object]) -> None:
        self._words, self._left, self._change = words, reads, change

    def __getitem__(self, at: int) -> int:
        if not self._left:
            self._change()
        self._left -= 1
        return self._words[at]


@pytest.mark.parametrize("reads", range(4))
def test_a_state_that_changes_while_it_is_read_does_not_have_the_time_of_the_next_one(reads):
    page = Board()
    board, view = MasterView(page), WorkerView(page, 0)
    board.new_worker(0)
    view.changed(State.TAKEN, 1)
    slot = board.slot(0)
    words: Any = _Interrupted(slot._words, reads, lambda: view.changed(State.IDLE, 2))
    slot._words = words

    (record,), _ = unpack(slot.record(WorkerState(0, os.getpid(), GENERATION, 0)))

    assert (record.state, record.at_ns) != (State.TAKEN, 2)
