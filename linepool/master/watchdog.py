"""Requests that run too long: the master's steps, from the stack of a slow one to the kill.

Runs in the master. It reads the board on its own clock; which step is due when is decided in
``pool.deadline``. The client of a killed worker reads an error line if no part of a reply can have
reached it, and a clean end of the stream in any case.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import selectors
import socket
import time
from collections.abc import Callable, Iterator

from linepool.conversation import Service
from linepool.errors import ServerError
from linepool.ipc.board import (
    HELD,
    OVERDUE,
    SERIAL,
    STARTED_NS,
    UNSTARTED,
    Board,
    Sight,
    Slot,
)
from linepool.kernel.listeners import show
from linepool.kernel.pidfd import Process
from linepool.master.worker_handle import Child
from linepool.pool.deadline import DUMP_NS, Escalation, Rules, StallLog, Step
from linepool.protocols.base import Request, printable
from linepool.settings import Settings
from linepool.worker.interrupts import RAISE

log = logging.getLogger("linepool")

_LONG = 1.0  # seconds; a shorter absence of the master is not worth a line in the log
_SELDOM = 0.25  # seconds between two looks at the least: a handler may move its limit at any time
_LINGER = 1.0  # seconds to go on reading what a client sends to its dead worker
_SECOND = "linepool/worker/evacuation.py"
_CALLER = "linepool/conversation.py"  # frames from here on are the server's, not the handler's
_DRAIN_BYTES = 65536
_PATIENCE_NS = 12_000_000  # how much longer to wait for a stack ...
_GLANCE_NS = 4_000_000  # ... and how often to look whether it is there


class Overdue:
    """Watches the requests in hand.

    Args:
        adopt: Takes connections, and when they were served last, of workers that were killed while
            they served others; None: a worker holds one connection only.

    Attributes:
        due_at: When to be asked again, on the monotonic clock in seconds.
    """

    def __init__(
        self,
        board: Board,
        service: Service,
        settings: Settings,
        selector: selectors.BaseSelector,
        adopt: Callable[[socket.socket, float], None] | None,
    ) -> None:
        self._board = board
        self._service = service
        self._selector = selector
        self._rules = Rules(int(settings.slow_request * 1e9), int(settings.kill_grace * 1e9))
        self._adopt = adopt
        self._hand_on_ns = int(settings.hand_off_after * 1e9) if settings.parks else 0
        limits = [_SELDOM, settings.request_timeout, settings.slow_request, self._hand_on_ns / 1e9]
        limits += [entry.timeout for entry in service.commands if entry.timeout is not None]
        self._look_every = min(limit for limit in limits if limit)
        self._first_step_ns = self._look_every * 1e9  # nothing is due of a request that began later
        self._attention = StallLog()
        self._farewells: list[_Farewell] = []
        self._rescues: dict[int, _Rescue] = {}
        self.due_at = math.inf

    def absent(self, since: float, now: float) -> None:
        """Note that the master should have run at one moment, in seconds, and ran at the other."""
        if self._attention.stalled(int(since * 1e9), int(now * 1e9)) and now - since >= _LONG:
            log.warning(
                "the master did not run for %.1f s; no request is charged for it", now - since
            )

    def judge(self, children: dict[int, Child], *, busy: bool) -> Iterator[tuple[int, str]]:
        """Take every step that is due, but for the kills: yield their slots, and why.

        Args:
            children: The workers, by slot.
            busy: Whether any of them has a client.
        """
        now_ns = time.monotonic_ns()
        due_ns = math.inf
        for slot, child in children.items():
            if child.kill_at == math.inf:
                continue
            if child.kill_at:
                look_ns = self._doomed(child, now_ns)
                if look_ns <= now_ns:
                    yield slot, child.why
                    continue
                due_ns = min(due_ns, look_ns)
            started_ns = self._board.slots[slot].words[STARTED_NS]
            if not started_ns:
                continue
            busy = True
            if now_ns - started_ns < self._first_step_ns:
                look_ns = started_ns + self._first_step_ns
            else:
                look_ns, why = self._look_at_request(slot, child, now_ns)
                if why:
                    yield slot, why
            due_ns = min(due_ns, look_ns)
        self._say_farewells()
        moments = [due_ns / 1e9, *(farewell.until for farewell in self._farewells)]
        if busy:
            moments.append(now_ns / 1e9 + self._look_every)
        self.due_at = min(moments)

    def _look_at_request(self, slot: int, child: Child, now_ns: int) -> tuple[float, str]:
        """Take the steps that are due about the request in hand, but for the kill.

        Returns when to look again, and why to kill the worker; "": it is not to be killed.
        """
        board_slot = self._board.slots[slot]
        sight = board_slot.look()
        if not board_slot.is_of(sight):
            return math.inf, ""  # it finished while we looked: what we saw is of two requests
        look_ns = now_ns + self._step_by_step(slot, child, sight, now_ns)
        if self._hand_on_ns:
            look_ns = min(look_ns, self._have_others_handed_on(child, board_slot, now_ns))
        is_due = child.case.step is Step.KILL
        return look_ns, f"took longer than {sight.limit_ns / 1e9:g} s" if is_due else ""

    def _have_others_handed_on(self, child: Child, slot: Slot, now_ns: int) -> float:
        """Nudge a worker whose request takes long while it has others; return when to look again."""
        words = slot.words
        started_ns, number = words[STARTED_NS], words[SERIAL]
        if now_ns - started_ns < self._hand_on_ns:
            return started_ns + self._hand_on_ns
        if words[UNSTARTED] or (words[HELD] > 1 and child.nudged != number):
            child.nudge(number)
        return now_ns + self._hand_on_ns

    def _doomed(self, child: Child, now_ns: int) -> float:
        """Ask a worker that will be killed for its stack in time; return when to look again."""
        kill_ns = child.kill_at * 1e9
        if not child.asked and now_ns >= kill_ns - DUMP_NS:
            child.ask_for_stack()
        return kill_ns if child.asked else kill_ns - DUMP_NS

    def _step_by_step(self, slot: int, child: Child, sight: Sight, now_ns: int) -> float:
        """Take the steps that are due about one request; return the ns until the next one."""
        if child.case.number != sight.number:
            child.case = Escalation(sight.number)
        ran_ns = self._attention.charged(sight.started_ns, now_ns)
        while due := child.case.due(sight.limit_ns, self._rules):
            step, at_ns = due
            if ran_ns < at_ns:
                return at_ns - ran_ns
            wants_stack = step in (Step.TELL_SLOW, Step.KILL)
            if wants_stack and ran_ns < at_ns + _PATIENCE_NS and not child.has_stack():
                return _GLANCE_NS  # a busy machine; from a stopped process it never comes
            child.case.step = step
            if step is Step.KILL:
                break
            self._take(step, slot, child, sight, ran_ns)
            if step in (Step.ASK_SLOW, Step.ASK_STUCK):
                return DUMP_NS  # the next step reads what the process writes meanwhile
        return math.inf

    def kill(self, slot: int, child: Child, why: str) -> None:
        """Kill a worker, tell its client, and log the stack that it was asked for."""
        board_slot = self._board.slots[slot]
        before = board_slot.look()
        client = None
        if before.client_fd >= 0:
            client = child.process.take_socket(before.client_fd, before.cookie)
        if self._adopt is not None:
            self._rescues[slot] = _Rescue(child.process, board_slot)
        child.process.kill()
        child.kill_at = math.inf
        peer = _peer(client)
        ran_s = (time.monotonic_ns() - before.started_ns) / 1e9 if before.started_ns else 0.0
        log.error(
            "worker killed pid=%d why=%r command=%s client=%s handler=%r ran_s=%.2f limit_s=%g%s",
            child.process.pid,
            why,
            printable(before.line) if before.started_ns else "-",
            peer,
            self._handler(before) if before.started_ns else "-",
            ran_s,
            before.limit_ns / 1e9,
            _indented(child.stack()),
        )
        if client is not None:
            words = functools.partial(self._last_words, slot, before.number, why)
            farewell = _Farewell(client, child.process, words, self._selector)
            farewell.say()
            self._farewells.append(farewell)

    def close(self) -> None:
        """Close the connections of dead workers, also in a new worker."""
        for farewell in self._farewells:
            farewell.socket.close()
        for rescue in self._rescues.values():
            rescue.close()

    def save_neighbours(self, slot: int) -> int:
        """Have others go on with what a killed worker held but did not serve; return how many.

        To be called once it is dead and before its slot on the board is used again.
        """
        rescue = self._rescues.pop(slot, None)
        if rescue is None or self._adopt is None:
            return 0
        now = time.monotonic()
        saved = rescue.saved()
        for sock in saved:
            self._adopt(sock, now)
        return len(saved)

    def _take(self, step: Step, slot: int, child: Child, sight: Sight, ran_ns: int) -> None:
        if step is Step.RAISE:
            self._board.slots[slot].words[OVERDUE] = sight.number
            child.process.send(RAISE)
        elif step in (Step.ASK_SLOW, Step.ASK_STUCK):
            child.ask_for_stack()
        elif step is Step.TELL_SLOW:
            log.warning(
                "slow request pid=%d command=%s ran_s=%.2f%s",
                child.process.pid,
                printable(sight.line),
                ran_ns / 1e9,
                _indented(child.stack()),
            )

    def _last_words(self, slot: int, number: int, why: str) -> bytes:
        """Return what to tell the client of a dead worker about what it had in hand."""
        sight = self._board.slots[slot].look()  # the last that it did: is it still the same?
        if not sight.started_ns or sight.number != number or sight.begun:
            return b""
        verb = sight.line.split(b" ")[0]
        request = Request(verb, [], eol=sight.eol, line=sight.line)
        return self._service.open_protocol().encode_error(
            ServerError(f"the request was ended: it {why}"), request
        )

    def _handler(self, sight: Sight) -> str:
        """Return where the handler of a request stands; a stopped process cannot show its stack."""
        words = sight.line.split()
        entry = self._service.find(words[0]) if words else None
        return f"{entry.function.__name__} at {entry.place}" if entry else "-"

    def _say_farewells(self) -> None:
        now = time.monotonic()
        for farewell in self._farewells:
            farewell.say()
            if farewell.over or now >= farewell.until:
                farewell.end()
        self._farewells = [one for one in self._farewells if one.socket.fileno() >= 0]


class _Farewell:
    """The connection of a killed worker: what its client is told, and the wait until it has heard.

    It is told once the worker is dead, so that nobody else can write any more. On a busy machine
    that may take a while, and the master does not wait for it.
    """

    def __init__(
        self,
        client: socket.socket,
        process: Process,
        words: Callable[[], bytes],
        selector: selectors.BaseSelector,
    ) -> None:
        self.socket = client
        self.over = False
        self.until = time.monotonic() + _LINGER
        self._process = process
        self._words = words
        self._selector = selector
        self._said = False
        client.setblocking(False)

    def say(self) -> None:
        """Tell the client, if the worker is dead by now."""
        if self._said or not self._process.is_dead():
            return
        self._said = True
        self.until = time.monotonic() + _LINGER
        with contextlib.suppress(OSError):
            self.socket.send(self._words())
        self._shut_down()
        self._selector.register(self.socket, selectors.EVENT_READ, self._drain)

    def end(self) -> None:
        """Close the connection."""
        if self._said:
            self._selector.unregister(self.socket)
        else:
            self._shut_down()
        self.socket.close()

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):
            # Acts on the socket itself, so it reaches the client even if a process that the handler
            # started still holds it.
            self.socket.shutdown(socket.SHUT_WR)

    def _drain(self) -> None:
        """Read away what the client still sends: unread input would reset the connection."""
        try:
            self.over = not self.socket.recv(_DRAIN_BYTES)
        except BlockingIOError:
            pass
        except OSError:
            self.over = True


class _Rescue:
    """The connections that a killed worker held beside the one in hand.

    Copies of them are taken while it is still alive, and given to others once it is dead: it may come
    back to itself at the last moment and serve them.
    """

    def __init__(self, process: Process, slot: Slot) -> None:
        self._slot = slot
        self._sockets: dict[int, tuple[socket.socket, tuple[int, int]]] = {}
        for place, (descriptor, cookie) in slot.neighbours().items():
            if sock := process.take_socket(descriptor, cookie):
                self._sockets[place] = sock, (descriptor, cookie)

    def saved(self) -> list[socket.socket]:
        """Return those that it has not touched since; the caller owns them."""
        neighbours = self._slot.neighbours()
        saved = []
        for place, (sock, known) in self._sockets.items():
            if neighbours.get(place) == known:
                saved.append(sock)
            else:
                sock.close()
        return saved

    def close(self) -> None:
        """Close the copies."""
        for sock, _ in self._sockets.values():
            sock.close()


def _peer(client: socket.socket | None) -> str:
    if client is None:
        return "-"
    with contextlib.suppress(OSError):
        return show(client.getpeername())
    return "-"


def _without_ours(stack: str) -> str:
    """Leave out the thread that is linepool's own."""
    threads = stack.split("\n\n")
    return "\n\n".join(one for one in threads if _SECOND not in one)


def _indented(stack: str) -> str:
    """Return a stack as lines behind the event that they belong to."""
    if not stack:
        return " stack=none (the process is stopped, or blocks the signal)"
    lines = _without_ours(stack).splitlines()
    ours = next((at for at, line in enumerate(lines) if _CALLER in line), len(lines))
    return "".join(f"\n    {line}" for line in lines[:ours])
