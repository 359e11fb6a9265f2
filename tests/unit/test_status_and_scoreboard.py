"""Status records and the scoreboard: whatever a worker writes, the master's view stays correct."""

import copy
import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.pool.scoreboard import Scoreboard, Tally, WorkerState
from linepool.pool.status import SIZE, Record, State, packed, unpack

SLOT, PID, GENERATION, SPAWNED_NS = 3, 4711, 2, 1_000

RECORDS = st.builds(
    Record,
    slot=st.integers(0, 2**16 - 1),
    state=st.sampled_from(State),
    pid=st.integers(0, 2**32 - 1),
    generation=st.integers(0, 2**32 - 1),
    connections=st.integers(0, 2**32 - 1),
    requests=st.integers(0, 2**64 - 1),
    at_ns=st.integers(0, 2**64 - 1),
)


def record(
    state: State = State.IDLE,
    at_ns: int = SPAWNED_NS + 1,
    requests: int = 0,
    *,
    slot: int = SLOT,
    pid: int = PID,
    generation: int = GENERATION,
) -> Record:
    return Record(slot, state, pid, generation, 1, requests, at_ns)


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """Return the records of one worker: time and counts increase."""
    at_ns, requests, connections = SPAWNED_NS, 0, 0
    records = []
    for state in draw(st.lists(st.sampled_from(State), min_size=1, max_size=12)):
        at_ns += draw(st.integers(1, 1000))
        requests += draw(st.integers(0, 3))
        connections += draw(st.integers(0, 2))
        records.append(Record(SLOT, state, PID, GENERATION, connections, requests, at_ns))
    return records


def scoreboard() -> Scoreboard:
    board = Scoreboard()
    board.spawned(SLOT, PID, GENERATION, SPAWNED_NS)
    return board


def written(*records: Record) -> bytes:
    return b"".join(packed(*attrs.astuple(record)) for record in records)


# -- records


def test_a_record_is_32_bytes_whatever_it_holds():
    largest = Record(
        2**16 - 1, State.LEAVING, 2**32 - 1, 2**32 - 1, 2**32 - 1, 2**64 - 1, 2**64 - 1
    )

    assert SIZE == 32
    assert len(written(record())) == len(written(largest)) == 32


@given(st.lists(RECORDS, max_size=5))
def test_records_are_read_as_they_were_written(records):
    assert unpack(written(*records)) == (records, 0)


def test_empty_data_has_no_records():
    assert unpack(b"") == ([], 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_malformed(data):
    records, malformed = unpack(data)

    assert len(records) + malformed == -(-len(data) // SIZE)
    assert all(isinstance(record.state, State) for record in records)


@given(st.lists(RECORDS, max_size=3), RECORDS, st.integers(1, SIZE - 1))
def test_an_incomplete_record_at_the_end_is_malformed_and_affects_no_other(records, last, length):
    assert unpack(written(*records) + written(last)[:length]) == (records, 1)


def test_an_unknown_state_is_malformed_and_affects_no_other():
    good = record()
    bad = written(good)[:2] + b"\x09\x00" + written(good)[4:]

    assert unpack(bad + written(good) + bad) == ([good], 2)


# -- which records are accepted


def test_a_worker_is_starting_until_its_first_record():
    board = scoreboard()

    assert board.tally() == Tally(starting=1)
    assert board.workers[SLOT] == WorkerState(
        SLOT, PID, GENERATION, SPAWNED_NS, since_ns=SPAWNED_NS
    )


@pytest.mark.parametrize(
    ("state", "tally"),
    [
        (State.READY, Tally(idle=1)),
        (State.IDLE, Tally(idle=1)),
        (State.TAKEN, Tally(busy=1)),
        (State.LEAVING, Tally(leaving=1)),
    ],
)
def test_a_worker_counts_by_its_last_record(state, tally):
    board = scoreboard()
    board.heard(SLOT, written(record(State.TAKEN, SPAWNED_NS + 1)))
    accepted = board.heard(SLOT, written(record(state, SPAWNED_NS + 2, 5)))

    assert accepted == [record(state, SPAWNED_NS + 2, 5)]
    assert board.tally() == tally
    worker = board.workers[SLOT]
    assert (worker.state, worker.since_ns, worker.requests) == (state, SPAWNED_NS + 2, 5)


@pytest.mark.parametrize(
    "foreign",
    [
        record(slot=SLOT + 1),
        record(pid=PID + 1),
        record(pid=0),
        record(generation=GENERATION + 1),
        record(generation=GENERATION - 1),
    ],
)
def test_a_record_of_another_worker_is_malformed(foreign):
    board = scoreboard()
    board.spawned(SLOT + 1, PID + 1, GENERATION, SPAWNED_NS)
    before = copy.deepcopy(board.workers[SLOT + 1])

    assert board.heard(SLOT, written(foreign)) == []
    assert board.workers[SLOT].state is None
    assert board.workers[SLOT].malformed == 1
    assert board.workers[SLOT + 1] == before


@pytest.mark.parametrize(
    "late",
    [
        record(at_ns=SPAWNED_NS + 9, requests=5),
        record(at_ns=0, requests=9),
        record(at_ns=SPAWNED_NS + 11, requests=4),
    ],
)
def test_a_record_that_goes_back_in_time_or_count_is_malformed(late):
    board = scoreboard()
    board.heard(SLOT, written(record(State.TAKEN, SPAWNED_NS + 10, 5)))

    assert board.heard(SLOT, written(late)) == []
    assert board.workers[SLOT].state is State.TAKEN
    assert board.workers[SLOT].malformed == 1


def test_a_record_from_before_the_fork_is_ignored():
    board = scoreboard()

    assert board.heard(SLOT, written(record(at_ns=SPAWNED_NS - 1))) == []
    assert board.tally() == Tally(starting=1)


def test_a_record_from_the_future_is_malformed_and_changes_nothing():
    board = scoreboard()
    board.heard(SLOT, written(record(State.IDLE)), SPAWNED_NS + 10)

    assert board.heard(SLOT, written(record(at_ns=SPAWNED_NS + 11)), SPAWNED_NS + 10) == []
    assert board.workers[SLOT].malformed == 1
    assert board.workers[SLOT].since_ns == SPAWNED_NS + 1


def test_a_reused_slot_has_no_state_of_its_former_worker():
    board = scoreboard()
    board.heard(SLOT, written(record(State.TAKEN, requests=9)))
    gone = board.reaped(SLOT)
    board.spawned(SLOT, PID + 1, GENERATION, SPAWNED_NS + 100)

    assert (gone.pid, gone.requests, gone.state) == (PID, 9, State.TAKEN)
    assert board.heard(SLOT, written(record(at_ns=SPAWNED_NS + 200))) == []
    assert board.tally() == Tally(starting=1)


def test_every_worker_counts_once():
    board = Scoreboard()
    states = [None, State.READY, State.IDLE, State.TAKEN, State.TAKEN, State.LEAVING]
    for slot, state in enumerate(states):
        board.spawned(slot, PID + slot, GENERATION, SPAWNED_NS)
        if state is not None:
            board.heard(slot, written(record(state, slot=slot, pid=PID + slot)))
    tally = board.tally()

    assert tally == Tally(starting=1, idle=2, busy=2, leaving=1)
    assert (tally.staying, tally.total) == (5, 6)


def test_a_retiring_worker_counts_as_leaving_whatever_it_reports():
    board = scoreboard()
    board.mark_retiring(SLOT)
    assert board.tally() == Tally(leaving=1)

    for number, state in enumerate((State.READY, State.TAKEN, State.IDLE, State.LEAVING)):
        board.heard(SLOT, written(record(state, SPAWNED_NS + number)))
        assert board.tally() == Tally(leaving=1)


def test_the_lowest_unused_slot_is_free():
    board = Scoreboard()
    for slot in (0, 1, 3):
        board.spawned(slot, PID + slot, GENERATION, SPAWNED_NS)

    assert board.free_slot(10) == 2
    board.reaped(0)
    assert board.free_slot(10) == 0


# -- properties


@given(histories(), st.data())
def test_the_newest_record_wins_in_any_order_with_duplicates(records, data):
    shuffled = data.draw(st.permutations(records * data.draw(st.integers(1, 3))))
    board = scoreboard()
    for chunk in _chunks(shuffled, data.draw(st.integers(1, 5))):
        board.heard(SLOT, written(*chunk))
    worker = board.workers[SLOT]
    newest = records[-1]

    assert (worker.state, worker.since_ns, worker.requests, worker.connections) == (
        newest.state,
        newest.at_ns,
        newest.requests,
        newest.connections,
    )


@given(histories(), st.integers(0, 11))
def test_a_lost_record_does_no_harm(records, lost):
    board = scoreboard()
    kept = [record for index, record in enumerate(records) if index != lost] or records
    accepted = board.heard(SLOT, written(*kept))

    assert accepted == kept
    assert board.workers[SLOT].state is kept[-1].state
    assert board.workers[SLOT].malformed == 0


@given(histories(), st.lists(RECORDS, max_size=6), st.randoms(use_true_random=False))
def test_records_of_other_workers_change_nothing(records, foreign, chance):
    foreign = [
        record
        for record in foreign
        if (record.slot, record.pid, record.generation) != (SLOT, PID, GENERATION)
    ]
    mixed = _merged(records, foreign, chance)
    alone, together = scoreboard(), scoreboard()

    assert together.heard(SLOT, written(*mixed)) == alone.heard(SLOT, written(*records))
    assert together.workers[SLOT].malformed == len(foreign)
    together.workers[SLOT].malformed = 0
    assert together.workers == alone.workers


@given(histories(), st.data())
def test_corrupted_records_never_raise_and_never_move_a_worker_back(records, data):
    board = scoreboard()
    board.spawned(SLOT + 1, PID + 1, GENERATION, SPAWNED_NS)
    other = attrs.evolve(board.workers[SLOT + 1])
    stream = bytearray(written(*records))
    for _ in range(data.draw(st.integers(0, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del stream[data.draw(st.integers(0, len(stream) - 1)) :]
    worker = board.workers[SLOT]
    heard = 0
    for start in range(0, len(stream), 2 * SIZE):
        before = attrs.evolve(worker)
        chunk = bytes(stream[start : start + 2 * SIZE])
        accepted = board.heard(SLOT, chunk)
        heard += len(accepted)
        assert worker.since_ns >= before.since_ns
        assert worker.requests >= before.requests
        assert all((r.slot, r.pid, r.generation) == (SLOT, PID, GENERATION) for r in accepted)
    assert (worker.slot, worker.pid, worker.generation) == (SLOT, PID, GENERATION)
    assert heard + worker.malformed == -(-len(stream) // SIZE)
    assert board.workers[SLOT + 1] == other
    assert board.tally().total == 2


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_arbitrary_bytes_leave_a_starting_worker_starting(chunks):
    board = scoreboard()
    for chunk in chunks:
        board.heard(SLOT, chunk)

    assert board.tally() == Tally(starting=1)


def _chunks(records: list[Record], size: int) -> list[list[Record]]:
    return [records[at : at + size] for at in range(0, len(records), size)]


def _merged(one: list[Record], other: list[Record], chance: random.Random) -> list[Record]:
    """Merge two lists, keeping the order of each."""
    merged = list(one)
    places = sorted(chance.randint(0, len(one)) for _ in other)
    for offset, (place, record_) in enumerate(zip(places, other, strict=True)):
        merged.insert(place + offset, record_)
    return merged
