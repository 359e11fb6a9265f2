"""The scoreboard: the last record of every worker, and the counts derived from it."""

from __future__ import annotations

from attrs import define, frozen

from linepool.pool.status import Record, State, unpack


@define
class WorkerState:
    """What the master knows of one worker.

    Attributes:
        state: What it said last; None: it has not said anything, it is starting.
        since_ns: When it said so.
        retiring: It has been told to leave, so it no longer counts as one that stays.
        caught_up_ns: Older records than this are no news, and no malformed either.
        malformed: How many times it wrote what is no record of its own.
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

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out, by its own word or the master's."""
        return self.retiring or self.state is State.LEAVING

    @property
    def shown(self) -> str:
        """Its state in the words of ``status``."""
        if self.leaving:
            return "leaving"
        if self.state is None:
            return "starting"
        return "busy" if self.state is State.TAKEN else "idle"


@frozen
class Tally:
    """How many workers are in which state; every worker counts once."""

    starting: int = 0
    idle: int = 0
    busy: int = 0
    leaving: int = 0

    @property
    def staying(self) -> int:
        """Workers that are not on their way out."""
        return self.starting + self.idle + self.busy

    @property
    def total(self) -> int:
        """Processes alive."""
        return self.staying + self.leaving


class Scoreboard:
    """The workers of all workers alive, by slot."""

    def __init__(self) -> None:
        self.workers: dict[int, WorkerState] = {}

    def spawned(self, slot: int, pid: int, generation: int, now_ns: int) -> None:
        """Note a new worker."""
        self.workers[slot] = WorkerState(slot, pid, generation, now_ns, since_ns=now_ns)

    def heard(self, slot: int, data: bytes) -> list[Record]:
        """Take what was read from a worker's status pipe; return the records that were believed.

        Believed is only what names the worker itself and does not go back in time or in counts.
        """
        worker = self.workers[slot]
        records, malformed = unpack(data)
        believed = []
        for record in records:
            if _accept(worker, record):
                believed.append(record)
            elif not _is_outdated(worker, record):
                malformed += 1
        worker.malformed += malformed
        return believed

    def caught_up(self, slot: int, data: bytes) -> list[Record]:
        """Take a record that came by another way than the pipe; return it if it was believed.

        What the worker wrote meanwhile may still be in its pipe, and older by then.
        """
        believed = self.heard(slot, data)
        self.workers[slot].caught_up_ns = self.workers[slot].since_ns
        return believed

    def reaped(self, slot: int) -> WorkerState:
        """Forget a worker that is dead; return what was known of it."""
        return self.workers.pop(slot)

    def mark_retiring(self, slot: int) -> None:
        """Note that a worker has been told to leave."""
        self.workers[slot].retiring = True

    def told_asleep(self) -> int:
        """Return how many have been told to leave but wait for a client, as far as is known."""
        return sum(
            worker.retiring and worker.state in (State.READY, State.IDLE)
            for worker in self.workers.values()
        )

    def tally(self) -> Tally:
        """Count the workers."""
        counts = {"starting": 0, "idle": 0, "busy": 0, "leaving": 0}
        for worker in self.workers.values():
            counts[worker.shown] += 1
        return Tally(**counts)

    def free_slot(self, slots: int) -> int:
        """Return the lowest slot that no worker has."""
        return next(slot for slot in range(slots) if slot not in self.workers)


def _names(worker: WorkerState, record: Record) -> bool:
    return (record.slot, record.pid, record.generation) == (
        worker.slot,
        worker.pid,
        worker.generation,
    )


def _is_outdated(worker: WorkerState, record: Record) -> bool:
    """Whether a record was overtaken by what stood on the board."""
    return _names(worker, record) and record.at_ns <= worker.caught_up_ns


def _accept(worker: WorkerState, record: Record) -> bool:
    """Take over one record, if it can be true."""
    if not _names(worker, record):
        return False
    if record.at_ns < worker.since_ns or record.requests < worker.requests:
        return False
    worker.state = record.state
    worker.since_ns = record.at_ns
    worker.requests = record.requests
    worker.connections = record.connections
    return True
