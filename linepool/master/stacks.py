"""The stacks of all workers, for an operator, while they serve.

Runs in the master, which never waits for them: a worker's second thread writes the stack down, and the loop
looks whether it is there. No system call of the worker is interrupted, unless the operator permits a signal.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Future

from attrs import define, frozen

from linepool.master.master import Master
from linepool.master.stack_text import calls_of, of_main_thread
from linepool.master.worker_handle import WorkerHandle
from linepool.pool.deadline import Step

LONGEST = 1.0
"""Seconds that a worker has to answer; on a busy machine it takes some milliseconds."""
_LOOK_EVERY = 0.004  # seconds


@frozen
class Frame:
    """A call in a stack: the file, the number of the line (0: not known), and the function."""

    file: str
    line: int
    function: str


@frozen
class Stack:
    """What the main thread of a worker does.

    Attributes:
        frames: The most recent call first; without the server's own below those of a handler.
        why: Why there are none; "": there are.
    """

    frames: list[Frame]
    why: str = ""


@define(eq=False)
class _Question:
    """One operator's question, and the workers that have not answered."""

    future: Future[object]
    finish: Callable[[dict[int, Stack]], object]
    unanswered: dict[int, WorkerHandle]
    until: float
    by_signal: bool
    found: dict[int, Stack]


class Stacks:
    """Asks workers for their stacks; watched by the master's loop."""

    def __init__(self, master: Master) -> None:
        self.due_at = math.inf
        self._master = master
        self._questions: list[_Question] = []

    def ask(
        self, finish: Callable[[dict[int, Stack]], object], *, by_signal: bool
    ) -> Future[object]:
        """Ask all workers.

        Args:
            finish: Called with the stacks by slot once all workers have answered, or ``LONGEST`` after.
            by_signal: Ask those that do not answer by a signal, which may end a call that one waits in.

        Returns:
            What ``finish`` returns.
        """
        workers = dict(self._master.pool.workers)
        for handle in workers.values():
            if not _is_asked(handle):
                handle.request_stack()
        until = time.monotonic() + LONGEST
        question = _Question(Future(), finish, workers, until, by_signal, {})
        self._questions.append(question)
        self.turn()
        return question.future

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register nothing."""

    def turn(self) -> None:
        """Look which workers have answered."""
        if not self._questions:
            return
        now = time.monotonic()
        for question in self._questions:
            self._look(question, now)
        self._questions = [one for one in self._questions if not one.future.done()]
        self.due_at = now + _LOOK_EVERY if self._questions else math.inf

    def close(self) -> None:
        """Close nothing: the control socket replies to what waits."""

    def abandon(self) -> None:
        """Close nothing."""

    def _look(self, question: _Question, now: float) -> None:
        alive = self._master.pool.workers
        for slot, handle in list(question.unanswered.items()):
            if alive.get(slot) is not handle:
                question.found[slot] = Stack([], "the worker has ended")
            elif handle.has_dump():
                question.found[slot] = _parsed(handle.dump())
            else:
                continue
            del question.unanswered[slot]
        if question.unanswered and now < question.until:
            return
        if question.unanswered and question.by_signal:
            question.by_signal = False
            question.until = now + LONGEST
            for slot, handle in question.unanswered.items():
                if not _is_asked(handle) and not self._why(slot, handle):
                    handle.request_dump()
            return
        for slot, handle in question.unanswered.items():
            why = self._why(slot, handle) or "C code keeps the interpreter"
            question.found[slot] = Stack([], f"no answer: {why}")
        if not question.future.done():  # else the server ends
            question.future.set_result(question.finish(question.found))

    def _why(self, slot: int, handle: WorkerHandle) -> str:
        """Return why a worker cannot answer, even by a signal; "": it could by a signal."""
        if self._master.scoreboard.workers[slot].state is None:
            return "the worker is starting"
        return "the process is stopped" if _is_stopped(handle.process.pid) else ""


def _is_asked(handle: WorkerHandle) -> bool:
    """Whether its stack is being written for the log, because it is to be killed."""
    return handle.dump_requested or handle.escalation.step is Step.ASK_STUCK


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by a signal or a debugger (proc(5), stat)."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2][:1] in b"Tt"
    return False


def _parsed(text: str) -> Stack:
    """Return the stack of the main thread."""
    frames = [Frame(*call) for call in calls_of(of_main_thread(text))]
    return Stack(frames, "" if frames else "no Python code runs")
