"""The scoreboard: the last record of every worker, and the counts derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, define, fields, frozen

from linepool.pool.status import Record, State, unpack

_LATEST_NS = (1 << 64) - 1  # the greatest time that a record can have


@define
class WorkerState:
    """What the master knows of one worker.

    Attributes:
        pid: Its pid; 0: it has been ordered, and is not there yet.
        spawned_ns: When it was forked, or ordered, if it is not there yet.
        state: The last state that it reported; None: none yet, it is starting.
        since_ns: When it reported that state.
        retiring: It has been ordered to leave, so it no longer counts as staying.
        caught_up_ns: Records not newer than this are outdated, but not malformed.
        malformed: How many malformed or foreign records it has written.
    """

    slot: int
    pid: int
    generation: int
    spawned_ns: int
    state: State | None = None
    since_ns: int = 0
    requests: int = 0
    connections: int = 0
    retiring: bool = False
    malformed: int = 0
    caught_up_ns: int = -1

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**asdict(self), "state": None if self.state is None else self.state.value}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> WorkerState:
        """Return what is in a JSON object, of which other keys are ignored."""
        known = {field.name: facts[field.name] for field in fields(cls)}
        state = facts["state"]
        return cls(**{**known, "state": None if state is None else State(state)})

    @property
    def leaving(self) -> bool:
        """Whether it is leaving, on its own or by order of the master."""
        return self.retiring or self.state is State.LEAVING

    @property
    def shown(self) -> str:
        """Its state as ``status`` shows it."""
        if self.leaving:
            return "leaving"
        if self.state is None:
            return "starting"
        return "busy" if self.state is State.TAKEN else "idle"


@frozen
class Tally:
    """The number of workers in each state; every worker counts once."""

    starting: int = 0
    idle: int = 0
    busy: int = 0
    leaving: int = 0

    @property
    def staying(self) -> int:
        """Workers that are not leaving."""
        return self.starting + self.idle + self.busy

    @property
    def total(self) -> int:
        """Live worker processes."""
        return self.staying + self.leaving


class Scoreboard:
    """The states of all live workers, by slot."""

    def __init__(self) -> None:
        self.workers: dict[int, WorkerState] = {}

    def spawned(self, slot: int, pid: int, generation: int, now_ns: int) -> None:
        """Add a new worker; its pid may not be known yet: 0."""
        self.workers[slot] = WorkerState(slot, pid, generation, now_ns, since_ns=now_ns)

    def born(self, slot: int, pid: int, now_ns: int) -> None:
        """Note the pid of a new worker; it begins to boot now."""
        self.workers[slot].pid = pid
        self.workers[slot].spawned_ns = now_ns

    def heard(self, slot: int, data: bytes, now_ns: int = _LATEST_NS) -> list[Record]:
        """Apply what was read from a worker's status pipe; return the accepted records.

        A record is accepted if it names the worker itself, neither its time nor its counts decrease, and
        its time is not later than ``now_ns``.
        """
        worker = self.workers[slot]
        records, malformed = unpack(data)
        accepted = []
        for record in records:
            if record.at_ns <= now_ns and _accept(worker, record):
                accepted.append(record)
            elif not _is_outdated(worker, record):
                malformed += 1
        worker.malformed += malformed
        return accepted

    def caught_up(self, slot: int, data: bytes) -> list[Record]:
        """Apply a record that did not come through the pipe; return it if it was accepted.

        Records still in the pipe may be older; they are ignored when they are read.
        """
        accepted = self.heard(slot, data)
        self.workers[slot].caught_up_ns = self.workers[slot].since_ns
        return accepted

    def reaped(self, slot: int) -> WorkerState:
        """Remove a dead worker; return its last state."""
        return self.workers.pop(slot)

    def mark_retiring(self, slot: int) -> None:
        """Mark a worker as ordered to leave."""
        self.workers[slot].retiring = True

    def tally(self) -> Tally:
        """Count the workers."""
        counts = {"starting": 0, "idle": 0, "busy": 0, "leaving": 0}
        for worker in self.workers.values():
            counts[worker.shown] += 1
        return Tally(**counts)

    def free_slot(self, slots: int) -> int:
        """Return the lowest free slot."""
        return next(slot for slot in range(slots) if slot not in self.workers)


def _names(worker: WorkerState, record: Record) -> bool:
    return (record.slot, record.pid, record.generation) == (
        worker.slot,
        worker.pid,
        worker.generation,
    )


def _is_outdated(worker: WorkerState, record: Record) -> bool:
    """Whether a record is older than what ``caught_up`` applied."""
    return _names(worker, record) and record.at_ns <= worker.caught_up_ns


def _accept(worker: WorkerState, record: Record) -> bool:
    """Apply one record if it is plausible; return whether it was."""
    if not _names(worker, record):
        return False
    if record.at_ns < worker.since_ns or record.requests < worker.requests:
        return False
    worker.state = record.state
    worker.since_ns = record.at_ns
    worker.requests = record.requests
    worker.connections = record.connections
    return True
