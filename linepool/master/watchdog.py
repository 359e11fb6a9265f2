"""The watchdog: what the master does about requests that run too long, up to the kill.

Runs in the master. It reads the board on its own clock; which step is due when is decided in
``pool.deadline``. The client of a killed worker reads an error line if no part of a reply can have
reached it, and the end of its stream in any case.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from linepool.ipc.announced import announced
from linepool.ipc.board import MasterSlot, MasterView, SlotSnapshot
from linepool.kernel.holder import holder_of
from linepool.kernel.sockets import local_name, peer_name
from linepool.master import stack_text
from linepool.master.generation import Generation, Logged
from linepool.master.incidents import KILLED, NOT_READY, Incidents
from linepool.master.last_reply import LastReply
from linepool.master.saved import Saved, SavedSockets
from linepool.master.timeouts import Timeouts
from linepool.master.worker_handle import WorkerHandle
from linepool.pool.deadline import DUMP_NS, Rules, StallLog, Step
from linepool.worker.interrupts import RAISE

log = logging.getLogger("linepool")

WAS_NOT_READY = "was not ready in time"
"""Why a worker is killed that does not come up."""
_LONG_STALL = 1.0  # seconds; a shorter stall of the master is not worth a line in the log
_LOOK_EVERY = 0.25  # seconds at most between two looks: a handler may move its limit at any time
_DUMP_WAIT_NS = 100_000_000  # how much longer to wait for a stack ...
_DUMP_WAITS_NS = {Step.KILL: 12_000_000, Step.TELL_SLOW: _DUMP_WAIT_NS}  # ... because of a request
_DUMP_LOOK_NS = 4_000_000  # ... and how often to look whether it is there
_NO_LOOK = " stack=none (C code keeps the interpreter, or the process is stopped)"


Adopt = Callable[[Saved], None]


@frozen
class _Watch:
    """What a generation asks of the watchdog.

    Attributes:
        look_every: Seconds between two looks at its requests.
        evacuate_ns: Other connections are handed off when a request takes longer; 0: never.
    """

    rules: Rules
    look_every: float
    evacuate_ns: int


class Watchdog:
    """Watches the requests in flight.

    Args:
        board: Where they are published.
        selector: The master's.
        adopt: Takes connections that dead workers held and did not serve; None: a worker holds one connection
            only.
        incidents: Where kills are noted.
        timeouts: Learns in which requests RequestTimeout is raised.

    Attributes:
        due_at: When to be asked again, on the monotonic clock in seconds.
        stalls: The periods in which the master was not running.
    """

    def __init__(
        self,
        board: MasterView,
        selector: selectors.BaseSelector,
        adopt: Adopt | None,
        incidents: Incidents,
        timeouts: Timeouts,
    ) -> None:
        self._board = board
        self._selector = selector
        self._adopt = adopt
        self._incidents = incidents
        self._timeouts = timeouts
        self.stalls = StallLog()
        self._watches: dict[int, _Watch] = {}  # by the number of the generation
        self._replies: list[LastReply] = []
        self._saved: dict[int, SavedSockets] = {}
        self.due_at = math.inf

    def stalled(self, since: float, now: float) -> None:
        """Note that the master should have run at one moment, in seconds, and ran at the other."""
        if self.stalls.stalled(int(since * 1e9), int(now * 1e9)) and now - since >= _LONG_STALL:
            log.warning(
                "the master did not run for %.1f s; it does not count towards any timeout",
                now - since,
            )

    @property
    def is_quiet(self) -> bool:
        """Whether no client of a killed worker is waited for, and no connection of one kept."""
        return not (self._replies or self._saved)

    def judge(
        self, workers: Mapping[int, WorkerHandle], *, busy: bool
    ) -> Iterator[tuple[int, str]]:
        """Take every step that is due except the kills: yield their slots, and why.

        Args:
            workers: Those that are alive, by slot.
            busy: Whether any of them has a client.
        """
        now_ns = time.monotonic_ns()
        self._timeouts.look(workers)
        due_ns = math.inf
        look_every = _LOOK_EVERY
        for slot, worker in workers.items():
            if worker.is_killed:
                continue
            if worker.kill_at:
                look_ns = self._prepare_kill(worker, now_ns)
                if look_ns <= now_ns:
                    yield slot, worker.why
                    continue
                due_ns = min(due_ns, look_ns)
            watch = self._watch(worker.generation)
            look_every = min(look_every, watch.look_every)
            started_ns = self._board.slot(slot).started_ns
            if not started_ns:
                continue
            busy = True
            first_look_ns = started_ns + watch.look_every * 1e9  # nothing is due of a newer request
            if now_ns < first_look_ns:
                look_ns = first_look_ns
            else:
                look_ns, why = self._look_at_request(slot, worker, watch, now_ns)
                if why:
                    yield slot, why
            due_ns = min(due_ns, look_ns)
        for reply in self._replies:
            reply.turn()
        self._replies = [reply for reply in self._replies if not reply.is_over]
        moments = [due_ns / 1e9, *(reply.due for reply in self._replies)]
        if busy or self._timeouts.is_waiting:
            moments.append(now_ns / 1e9 + look_every)
        self.due_at = min(moments)

    def kill(self, slot: int, worker: WorkerHandle, why: str) -> None:
        """Kill a worker, reply to its client, and log the stack that it was asked for."""
        board_slot = self._board.slot(slot)
        before = board_slot.snapshot()
        client = None
        if before.client_fd >= 0:
            client = worker.process.take_socket(before.client_fd, before.cookie)
        if self._adopt is not None:
            self._saved[slot] = SavedSockets(worker.process, board_slot, has_died=False)
        worker.process.kill()  # with its holder
        worker.kill_at, worker.why = math.inf, why
        worker.client = _name_of(client, board_slot, before.cookie)
        generation = worker.generation
        logged = generation.logged(before.command, before.line) if before.started_ns else None
        ran_s = (time.monotonic_ns() - before.started_ns) / 1e9 if logged else 0.0
        dump = worker.dump()
        log.error(
            "worker killed pid=%d why=%r command=%s client=%s handler=%r ran_s=%.2f limit_s=%g id=%s%s",
            worker.process.pid,
            why,
            logged.words if logged else "-",
            worker.client or "-",
            _handler(logged),
            ran_s,
            before.limit_ns / 1e9,
            logged.id if logged else "-",
            stack_text.of_handler(dump),
            extra={"command": logged.name if logged else ""},
        )
        self._incidents.note(
            NOT_READY if why == WAS_NOT_READY else KILLED,
            stack_text.calls_of(stack_text.of_main_thread(dump)),
            command=logged.name if logged else "",
            client=worker.client,
            pid=worker.process.pid,
            slot=slot,
            generation=generation.number,
            ran_s=ran_s if logged else None,
            limit_s=(before.limit_ns / 1e9 or None) if logged else None,
            id=logged.given_id if logged else "",
            why=why,
        )
        if client is not None:
            local = local_name(client)
            ask = functools.partial(
                _ask_last_reply, board_slot, generation, before.number, why, local
            )
            is_served = functools.partial(board_slot.serves, before.client_fd, before.cookie)
            last = LastReply(
                client, worker.process, is_served, ask, self._selector, is_sealed=before.is_sealed
            )
            last.turn()
            self._replies.append(last)

    def take_connections(self, slot: int, worker: WorkerHandle) -> None:
        """Take what a worker held that has died by itself, from what shares its descriptors.

        Pre-condition: it is dead and not reaped: with it all that is left of its process group ends.
        """
        if self._adopt is None or slot in self._saved:
            return
        with holder_of(worker.process.pid) as holder:
            if holder is not None:
                self._saved[slot] = SavedSockets(holder, self._board.slot(slot), has_died=True)

    def save_connections(self, slot: int) -> int:
        """Have other workers continue with what a dead one held but did not serve; return how many.

        Pre-condition: the worker is dead, and its slot has not been used again.
        """
        sockets = self._saved.pop(slot, None)
        if sockets is None or self._adopt is None:
            return 0
        saved = sockets.take()
        for one in saved:
            self._adopt(one)
        return len(saved)

    @property
    def is_replying(self) -> bool:
        """Whether there is a client of a killed worker that has not been sent its reply."""
        return any(not reply.is_sent for reply in self._replies)

    def close(self) -> None:
        """Close the connections of dead workers, also in a new worker."""
        for reply in self._replies:
            reply.close()
        for sockets in self._saved.values():
            sockets.close()

    def _watch(self, generation: Generation) -> _Watch:
        watch = self._watches.get(generation.number)
        if watch is None:
            watch = self._watches[generation.number] = _watch_of(generation)
        return watch

    def _look_at_request(
        self, slot: int, worker: WorkerHandle, watch: _Watch, now_ns: int
    ) -> tuple[float, str]:
        """Take the steps that are due about the request in flight, except the kill.

        Returns when to look again, and why to kill the worker; "": it is not to be killed.
        """
        board_slot = self._board.slot(slot)
        snapshot = board_slot.snapshot()
        if not board_slot.is_current(snapshot):
            return math.inf, ""  # it finished while it was copied: the copy is of two requests
        look_ns = now_ns + self._escalate(slot, board_slot, worker, watch.rules, snapshot, now_ns)
        if watch.evacuate_ns:
            look_ns = min(look_ns, _evacuate(board_slot, worker, watch.evacuate_ns, now_ns))
        is_due = worker.escalation.step is Step.KILL
        return look_ns, f"took longer than {snapshot.limit_ns / 1e9:g} s" if is_due else ""

    def _prepare_kill(self, worker: WorkerHandle, now_ns: int) -> float:
        """Ask a worker that will be killed for its stack in time; return when to look again."""
        kill_ns = worker.kill_at * 1e9
        if not worker.dump_requested and now_ns >= kill_ns - DUMP_NS:
            worker.request_dump()
        if not worker.dump_requested:
            return kill_ns - DUMP_NS
        if kill_ns <= now_ns < kill_ns + _DUMP_WAIT_NS and not worker.has_dump():
            return now_ns + _DUMP_LOOK_NS  # a busy machine
        return kill_ns

    def _escalate(
        self,
        number: int,
        slot: MasterSlot,
        worker: WorkerHandle,
        rules: Rules,
        snapshot: SlotSnapshot,
        now_ns: int,
    ) -> float:
        """Take the steps that are due about one request; return the ns until the next one."""
        worker.follow(snapshot.number)
        escalation = worker.escalation
        ran_ns = self.stalls.charged(snapshot.started_ns, now_ns)
        while due := escalation.due(snapshot.limit_ns, rules):
            step, at_ns = due
            if ran_ns < at_ns:
                return at_ns - ran_ns
            wait_ns = _DUMP_WAITS_NS.get(step, 0)
            if ran_ns < at_ns + wait_ns and not worker.has_dump():
                return _DUMP_LOOK_NS  # a busy machine; from a stopped process it never comes
            escalation.step = step
            if step is Step.KILL:
                break
            if step is Step.RAISE:
                self._timeouts.raised(number, worker, snapshot)
            _take(step, slot, worker, snapshot, ran_ns)
            if step in (Step.ASK_SLOW, Step.ASK_STUCK):
                return DUMP_NS  # the next step reads what the process writes meanwhile
        return math.inf


def _watch_of(generation: Generation) -> _Watch:
    settings = generation.settings
    evacuate_after = settings.hand_off_after if settings.has_parker else 0.0
    limits = [_LOOK_EVERY, settings.slow_request, evacuate_after]
    limits += [one.request_timeout for one in settings.each]
    limits += [one.timeout for one in generation.facts.commands if one.timeout is not None]
    return _Watch(
        Rules(int(settings.slow_request * 1e9), int(settings.kill_grace * 1e9)),
        min(limit for limit in limits if limit),
        int(evacuate_after * 1e9),
    )


def _evacuate(slot: MasterSlot, worker: WorkerHandle, after_ns: int, now_ns: int) -> float:
    """Have a worker hand off its other connections while its request takes long.

    Returns when to look again.
    """
    started_ns, number = slot.started_ns, slot.number
    if now_ns - started_ns < after_ns:
        return started_ns + after_ns
    if slot.unstarted or (slot.held > 1 and worker.evacuated != number):
        worker.evacuate(number)
    return now_ns + after_ns


def _take(
    step: Step, slot: MasterSlot, worker: WorkerHandle, snapshot: SlotSnapshot, ran_ns: int
) -> None:
    if step is Step.RAISE:
        slot.raise_timeout(snapshot.number)
        worker.process.send(RAISE)
    elif step is Step.ASK_SLOW:
        worker.request_stack()
    elif step is Step.ASK_STUCK:
        worker.request_dump()
    elif step is Step.TELL_SLOW:
        logged = worker.generation.logged(snapshot.command, snapshot.line)
        log.warning(
            "slow request pid=%d command=%s ran_s=%.2f id=%s%s",
            worker.process.pid,
            logged.words,
            ran_ns / 1e9,
            logged.id,
            stack_text.of_handler(worker.dump()) if worker.has_dump() else _NO_LOOK,
            extra={"command": logged.name},
        )


def _name_of(client: socket.socket | None, slot: MasterSlot, cookie: int) -> str:
    """Return the address of the client that a worker serves; "": it is not known."""
    if client is None:
        return ""
    with contextlib.suppress(ValueError):  # a handler has written nonsense there
        if data := slot.announced(cookie):
            return announced(data).peer
    return peer_name(client)


def _ask_last_reply(
    slot: MasterSlot,
    generation: Generation,
    number: int,
    why: str,
    local: str,
    send: Callable[[bytes], None],
) -> None:
    """Have the loader say what the client of a dead worker is sent about its request; b"": nothing."""
    snapshot = slot.snapshot()  # the last that it did: is it still the same request?
    if not snapshot.started_ns or snapshot.number != number or snapshot.begun:
        send(b"")
        return
    text = f"the request was ended: it {why}"
    generation.loader.ask_error(snapshot.line, snapshot.eol, text, local, send)


def _handler(logged: Logged | None) -> str:
    """Return the name and place of a request's handler; a stopped process cannot show its stack."""
    return logged.command.place if logged and logged.command else "-"
