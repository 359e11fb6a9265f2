"""The master's end of one observer: it is ordered, told what to run, killed if it hangs, and let go.

Runs in the master, which never waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import selectors
import time
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from linepool.ipc import channel as channels
from linepool.ipc.letters import Letter, LetterBox
from linepool.kernel.memory_file import memory_file
from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.signals import signal_name
from linepool.master import stack_text
from linepool.master.generation import Generation
from linepool.worker.interrupts import DUMP

log = logging.getLogger("linepool")

_DUMP_WAIT = 0.1  # seconds for its stack to be written before it is killed
_DUMP_LOOK = 0.005  # seconds between two looks whether it is there
_STACK_BYTES = 65536
_END_WAIT = 1.0  # seconds for a killed process to end, when the master ends


@frozen
class Call:
    """A function that the observer runs.

    Attributes:
        name: Of the hook.
        number: Which of its functions; the first is 0.
        event: What it is given, for JSON.
        place: The function, for messages.
    """

    name: str
    number: int
    event: Mapping[str, Any]
    place: str


class ObserverHandle:
    """The master's end of one observer.

    Args:
        generation: What it is forked from.
        box: The master's end of the channel.
        stack_file: A descriptor; where its stack is written.
        selector: The master's.

    Attributes:
        process: None: it is not there yet.
        running: What it runs; None: nothing.
        is_over: It has ended, or does not come, and all is closed.
        is_killed: It was killed, which the log says.
        how: How it ended.
    """

    def __init__(
        self,
        generation: Generation,
        box: LetterBox,
        stack_file: int,
        selector: selectors.BaseSelector,
    ) -> None:
        self.generation = generation
        self.process: ChildProcess | None = None
        self.running: Call | None = None
        self.is_over = False
        self.is_killed = False
        self.how = ""
        self.ordered_at = time.monotonic()
        self._box: LetterBox | None = box
        self._stack_file = stack_file
        self._selector = selector
        self._run_at = 0.0
        self._limit = 0.0
        self._kill_at = math.inf  # ends what it runs, or its end
        self._dump_by = math.inf  # its stack has been asked for
        selector.register(box, selectors.EVENT_READ, self._hear)

    @classmethod
    def order(cls, generation: Generation, selector: selectors.BaseSelector) -> ObserverHandle:
        """Have a generation's loader fork an observer.

        Raises:
            OSError: There are no descriptors left, or the loader does not read; nothing has changed.
        """
        with contextlib.ExitStack() as undo:
            ours, theirs = channels.pair()
            undo.callback(ours.close)
            with theirs:
                stack_file = memory_file("linepool-stack-observer")
                undo.callback(os.close, stack_file)
                fcntl.fcntl(stack_file, fcntl.F_SETFL, os.O_APPEND)
                generation.loader.send("OBSERVE", {}, [theirs.fileno(), stack_file])
            undo.pop_all()
        ours.setblocking(False)
        return cls(generation, LetterBox(ours), stack_file, selector)

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to take it over, for JSON, and descriptors; it keeps them.

        Pre-condition: it is there.
        """
        assert self.process is not None
        assert self._box is not None
        facts = {
            "pid": self.process.pid,
            "generation": self.generation.number,
            "running": asdict(self.running) if self.running else None,
            "run_at": self._run_at,
            "limit": self._limit,
            "kill_at": self._kill_at,
        }
        return facts, [self.process.pidfd, self._box.fileno(), self._stack_file]

    @classmethod
    def taken_over(
        cls,
        facts: Mapping[str, Any],
        descriptors: Sequence[int],
        generation: Generation,
        selector: selectors.BaseSelector,
    ) -> ObserverHandle:
        """Return the observer that another program has handed over; it may have ended.

        Args:
            facts: As returned by ``handed_over``.
            descriptors: Likewise; the new object owns them.
            generation: What it was forked from.
            selector: The master's.

        Raises:
            ValueError: It is not a child of this process.
            OSError: A descriptor is of something else.
        """
        pidfd, channel, stack_file = descriptors
        for number in descriptors:
            os.set_inheritable(number, False)
        sock = channels.end_of(channel)
        sock.setblocking(False)
        observer = cls(generation, LetterBox(sock), stack_file, selector)
        observer._begin(ChildProcess.taken_over(facts["pid"], pidfd))
        observer.running = Call(**facts["running"]) if facts["running"] else None
        observer._run_at, observer._limit = facts["run_at"], facts["limit"]
        observer._kill_at = facts["kill_at"]
        return observer

    @property
    def is_free(self) -> bool:
        """Whether it waits for something to run."""
        return self.process is not None and self._box is not None and self.running is None

    @property
    def start_by(self) -> float:
        """When it must be there, on the monotonic clock; infinite: it is."""
        if self.process is not None or self.is_over:
            return math.inf
        return self.ordered_at + self.generation.settings.spawn_timeout

    @property
    def due_at(self) -> float:
        """When to call ``turn``, on the monotonic clock."""
        if self.is_over or self.is_killed:
            return math.inf
        if self._dump_by < math.inf:
            return time.monotonic() + _DUMP_LOOK
        return min(self.start_by, self._kill_at)

    def run(self, call: Call, limit: float) -> None:
        """Have it run a function. Pre-condition: ``is_free``.

        Args:
            call: The function.
            limit: Seconds after which it is killed.
        """
        assert self._box is not None
        self.running = call
        self._run_at, self._limit = time.monotonic(), limit
        self._kill_at = self._run_at + limit
        with contextlib.suppress(OSError):  # it ends, which is noted when it is reaped
            self._box.send("CALL", asdict(call))

    def end_by(self, moment: float) -> None:
        """Have it killed at a moment, if it is still there or at work then."""
        self._limit = max(0.0, min(self._limit, moment - self._run_at))
        self._kill_at = min(self._kill_at, moment)

    def leave(self, seconds: float) -> None:
        """Have it end, and be killed if it has not by then. Pre-condition: ``is_free``."""
        self._close_box()
        self._kill_at = time.monotonic() + seconds

    def turn(self, now: float) -> None:
        """Give it up if it does not come, and take the steps to its kill."""
        if now >= self.start_by:
            self.how = "why='was not forked in time'"
            self._finish()
        elif self.process is not None and now >= self._kill_at and not self.is_killed:
            if self._dump_by == math.inf:
                os.ftruncate(self._stack_file, 0)
                self.process.send(DUMP)
                self._dump_by = now + _DUMP_WAIT
            elif now >= self._dump_by or "Current thread" in self._dump():
                self._kill(self.process, now)

    def close(self) -> None:
        """Kill it, reap it and close everything, in the master."""
        if self.process is not None and not self.is_over:
            self.process.kill()
            self.process.is_dead(_END_WAIT)
            self.process.reap()
        self.abandon()

    def abandon(self) -> None:
        """Close this process's copies of everything."""
        if self.is_over:
            return
        if self._box is not None:
            self._box.close()
        if self.process is not None:
            self.process.close()
        os.close(self._stack_file)
        self.is_over = True

    def _hear(self) -> None:
        """Act on all letters that have come."""
        try:
            while self._box is not None and (letter := self._box.receive(wait=False)):
                with contextlib.closing(letter):
                    self._act_on(letter)
        except EOFError:
            self._close_box()
            if self.process is None:
                self.how = "why='was not forked'"
                self._finish()
        except (ValueError, TypeError, KeyError, OSError) as error:
            self._close_box()
            self.how = f"why={f'sends nonsense: {error!r}'!r}"
            if self.process is None:
                self._finish()
            else:
                self.process.kill()

    def _act_on(self, letter: Letter) -> None:
        match letter.kind:
            case "STARTED" if self.process is None:
                (pidfd,) = letter.descriptors
                process = ChildProcess.taken_over(int(letter.facts["pid"]), pidfd)
                letter.descriptors.clear()
                self._begin(process)
                log.debug("observer started pid=%d", process.pid)
            case "DONE" if self._dump_by == math.inf:
                self.running = None
                self._kill_at = math.inf
            case "DONE":  # it is being killed
                pass
            case _:
                raise ValueError(letter.kind)

    def _begin(self, process: ChildProcess) -> None:
        self.process = process
        self._selector.register(process.pidfd, selectors.EVENT_READ, self._ended)

    def _kill(self, process: ChildProcess, now: float) -> None:
        """Kill it, and log what it was doing."""
        self.is_killed = True
        call = self.running
        log.error(
            "observer killed pid=%d hook=%s function=%r ran_s=%.2f limit_s=%g%s",
            process.pid,
            call.name if call else "-",
            call.place if call else "(exit)",
            now - self._run_at if call else 0.0,
            self._limit if call else 0.0,
            stack_text.of_hook(self._dump()),
        )
        process.kill()

    def _dump(self) -> str:
        return os.pread(self._stack_file, _STACK_BYTES, 0).decode("utf-8", "replace")

    def _ended(self) -> None:
        """Note its end."""
        assert self.process is not None
        status = self.process.reap()
        if status is not None:
            how = f"status={status}" if status >= 0 else f"signal={signal_name(-status)}"
            self.how = self.how or how
            self._finish()

    def _finish(self) -> None:
        """Close everything."""
        self._close_box()
        if self.process is not None:
            self._selector.unregister(self.process.pidfd)
        self.abandon()

    def _close_box(self) -> None:
        if self._box is not None:
            self._selector.unregister(self._box)
            self._box.close()
            self._box = None
