"""The master's ends of one worker. Used by the master."""

from __future__ import annotations

import fcntl
import math
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from linepool.ipc import channel as channels
from linepool.ipc.messages import WakeUp
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.memory_file import memory_file
from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.pipes import add
from linepool.master import stack_text
from linepool.master.generation import Generation
from linepool.pool.deadline import Escalation, Step
from linepool.worker.evacuation import LOOK
from linepool.worker.interrupts import DUMP

_STACK_BYTES = 65536
_CRASH_BYTES = 2**20  # stacks that were asked for may be before that of the crash


@frozen
class Ends:
    """The master's ends of what connects a worker; while there is no worker yet, all that there is of it.

    Attributes:
        generation: What it is forked from.
        bell: A counter; see ``worker.evacuation``.
        stack_file: Where its stack is written.
    """

    generation: Generation
    pipe: StatusPipe
    channel: socket.socket
    bell: int
    stack_file: int

    def close(self) -> None:
        """Close them."""
        self.close_all_but_channel()
        self.channel.close()

    def close_all_but_channel(self) -> None:
        """Close what a new parker does not need."""
        os.close(self.pipe.reader)
        os.close(self.bell)


class WorkerHandle:
    """The master's ends of one worker, and its process.

    Attributes:
        generation: What it was forked from.
        escalation: The request in flight, as far as it is watched.
        kill_at: When it is killed if it is still there, on the monotonic clock; 0: no such moment is
            set; infinite: it has been killed.
        why: The reason for the kill, for its client and the log: the request "..."
        client: The address of the client that it was serving when it was killed; "": not known.
        dump_requested: It has been asked for its stack.
        evacuated: The serial number of the request for which it was last asked to hand off the others.
    """

    def __init__(self, process: ChildProcess, ends: Ends) -> None:
        self.process = process
        self.generation = ends.generation
        self.pipe = ends.pipe
        self.channel = ends.channel
        self.escalation = Escalation()
        self.kill_at = 0.0
        self.why = ""
        self.client = ""
        self.dump_requested = False
        self.evacuated = 0
        self._ends = ends
        self._bell = ends.bell
        self._stack_file = ends.stack_file

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to take it over, for JSON, and descriptors; it keeps them."""
        facts = {
            "pid": self.process.pid,
            "generation": self.generation.number,
            "escalation": [self.escalation.number, self.escalation.step],
            "kill_at": self.kill_at,
            "why": self.why,
            "dump_requested": self.dump_requested,
            "evacuated": self.evacuated,
        }
        ends = self._ends
        return facts, [self.process.pidfd, ends.pipe.reader, ends.channel.fileno(), ends.bell]

    @classmethod
    def taken_over(
        cls,
        facts: Mapping[str, Any],
        descriptors: Sequence[int],
        generation: Generation,
        stack_file: int,
    ) -> WorkerHandle:
        """Return the worker that another program has handed over.

        Args:
            facts: As returned by ``handed_over``.
            descriptors: Likewise; the new object owns them.
            generation: What it was forked from.
            stack_file: That of its slot.

        Raises:
            ValueError: It is not a child of this process.
            OSError: A descriptor is of something else.
        """
        pidfd, reader, channel, bell = descriptors
        for number in descriptors:
            os.set_inheritable(number, False)
        pipe = StatusPipe((reader, -1))
        ends = Ends(generation, pipe, channels.end_of(channel), bell, stack_file)
        worker = cls(ChildProcess.taken_over(facts["pid"], pidfd), ends)
        number, step = facts["escalation"]
        worker.escalation = Escalation(number, Step(step))
        worker.kill_at, worker.why = facts["kill_at"], facts["why"]
        worker.dump_requested = facts["dump_requested"]
        worker.evacuated = facts["evacuated"]
        return worker

    @property
    def is_killed(self) -> bool:
        """Whether it has been killed."""
        return self.kill_at == math.inf

    def is_overdue(self, number: int) -> bool:
        """Whether it is killed because of a request, by its serial number."""
        return self.escalation.number == number and self.escalation.step is Step.KILL

    def kill_by(self, kill_at: float, why: str) -> None:
        """Have it killed at a moment, unless it is to be killed earlier."""
        if not self.kill_at or kill_at < self.kill_at:
            self.kill_at = kill_at
            self.why = why
            self.dump_requested = False  # an earlier stack is out of date by then

    def follow(self, number: int) -> None:
        """Begin a new escalation if the request in flight, by its serial number, is another one."""
        if self.escalation.number != number:
            self.escalation = Escalation(number)

    def request_stack(self) -> None:
        """Have its second thread write the stack, without a signal; it cannot while C code keeps Python."""
        os.ftruncate(self._stack_file, 0)
        add(self._bell, LOOK)

    def request_dump(self) -> None:
        """Have the worker write its stack before it is killed; the signal may end a call it waits in."""
        os.ftruncate(self._stack_file, 0)
        self.process.send(DUMP)
        self.dump_requested = True

    def has_dump(self) -> bool:
        """Whether the worker has written the stack of its main thread, which comes last."""
        return "Current thread" in self.dump()

    def dump(self) -> str:
        """Return the stack that the worker wrote when it was asked last; "": none."""
        return os.pread(self._stack_file, _STACK_BYTES, 0).decode("utf-8", "replace")

    def crash(self, status: int) -> str:
        """Return the stacks that the worker has written at its end; "": none. Pre-condition: it has ended.

        Args:
            status: Its exit status, or minus the signal that ended it.
        """
        text = os.pread(self._stack_file, _CRASH_BYTES, 0).decode("utf-8", "replace")
        return stack_text.of_crash(text, status)

    def wake(self) -> None:
        """End the worker's wait: there is an order on the board."""
        channels.send(self.channel, WakeUp())  # if that fails, it leaves, or is about to wake up

    def evacuate(self, number: int) -> None:
        """Have its second thread hand off the other connections while this request is in flight."""
        self.evacuated = number
        add(self._bell, 1)

    def close(self) -> None:
        """Close all descriptors."""
        self.process.close()
        self._ends.close()

    def close_all_but_channel(self) -> None:
        """Close what a new parker does not need."""
        self.process.close()
        self._ends.close_all_but_channel()


class StackFiles:
    """One memory file for each slot, for the stack of its worker; kept for the next worker."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to take them over, for JSON, and descriptors; it keeps them."""
        return {"slots": list(self._files)}, list(self._files.values())

    def take_over(self, facts: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Go on with the files that another program has handed over."""
        self._files = dict(zip(facts["slots"], descriptors, strict=True))
        for number in descriptors:
            os.set_inheritable(number, False)

    def of(self, slot: int) -> int:
        """Return the descriptor of a slot's file, empty."""
        if slot not in self._files:
            self._files[slot] = memory_file(f"linepool-stack-{slot}")
            # Appending, so that a worker writes at the start again once the file was emptied.
            fcntl.fcntl(self._files[slot], fcntl.F_SETFL, os.O_APPEND)
        os.ftruncate(self._files[slot], 0)
        return self._files[slot]

    def known(self, slot: int) -> int:
        """Return the descriptor of a slot's file, as it is."""
        return self._files[slot]

    def close(self) -> None:
        """Close all of them."""
        for descriptor in self._files.values():
            os.close(descriptor)
