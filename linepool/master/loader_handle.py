"""The master's end of a loader: starts it, hears what it has loaded, and orders workers from it.

Runs in the master. Nothing here waits for the loader, but for ``wait_until_loaded``, before there is a loop.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from linepool.errors import SetupError
from linepool.facts import AppFacts
from linepool.ipc import channel as channels
from linepool.ipc.letters import Letter, LetterBox
from linepool.kernel.event_set import new_selector
from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.program import Program
from linepool.kernel.signals import signal_at_parents_end, signal_name, signals_blocked
from linepool.settings import Settings, as_texts, from_texts, known_texts
from linepool.worker.interrupts import DUMP

log = logging.getLogger("linepool")

VARIABLE = "LINEPOOL_LOADER"
"""Tells a program that it is to be a loader: JSON with the descriptor of its channel, the master's pid ..."""

CLOSED_CHANNEL = 3
"""The exit status of a loader whose app has closed its channel to the master."""

_ANSWER_WAIT = 1.0  # seconds for what a client waits for
_END_WAIT = 1.0  # seconds for a killed loader to end
_DUMP_WAIT = 0.1  # seconds for the stacks of one that hangs to be written


def loader_facts(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what a program is told that is to be a loader; None: it is not to be one.

    Raises:
        SystemExit: It is, and the master has ended, with which the kernel ends loaders on Linux only.
    """
    with contextlib.suppress(ValueError):
        facts = json.loads(environment.get(VARIABLE, ""))
        if isinstance(facts, dict) and facts.get("master") == os.getppid():
            return facts
        if isinstance(facts, dict) and facts.get("loader") == os.getpid():
            raise SystemExit(1)
    return None


class LoadError(SetupError):
    """An app was not loaded.

    Attributes:
        is_usage: The settings are wrong.
    """

    def __init__(self, why: str, *, is_usage: bool = False) -> None:
        super().__init__(why)
        self.is_usage = is_usage


class Ears(Protocol):
    """What is told of workers that a loader has forked, and of its end."""

    def born(self, slot: int, pid: int, pidfd: int) -> None:
        """There is a new worker in a slot; the pidfd is taken over."""

    def not_born(self, slot: int, why: str) -> None:
        """There is none, and why."""

    def loader_ended(self, loader: LoaderHandle) -> None:
        """A loader has ended, without being closed."""


class LoaderHandle:
    """The master's end of one loader.

    Args:
        process: The loader.
        box: The master's end of the channel.
        name: Of what it loads, for messages.

    Attributes:
        facts: What it has loaded; None: nothing yet.
        settings: As its configuration says.
        failure: Why it loads nothing; None: it has, or is still at it.
        end: How it has ended; "": it has not, or was closed.
        files: Those of the app's own code that it has loaded, or that failed to load.
        started_ns: When it was started, in nanoseconds since 1970.
        is_open: It lives, as far as is known.
        heard_at: When it sent something last, on the monotonic clock.
    """

    def __init__(self, process: ChildProcess, box: LetterBox, name: str) -> None:
        self.process = process
        self.facts: AppFacts | None = None
        self.settings: Settings | None = None
        self.failure: LoadError | None = None
        self.end = ""
        self.files: tuple[str, ...] = ()
        self.started_ns = time.time_ns()
        self._box = box
        self._name = name
        self._selector: selectors.BaseSelector | None = None
        self._ears: Ears | None = None
        self._asked = 0  # questions
        self._questions: dict[int, Callable[[bytes], None]] = {}
        self._answer_by = 0.0  # on the monotonic clock
        self.is_open = True
        self.heard_at = 0.0

    @property
    def has_tried(self) -> bool:
        """Whether it has loaded the app, or has failed to."""
        return self.facts is not None or self.failure is not None

    @property
    def is_asked(self) -> bool:
        """Whether the client of a killed worker still waits for what it encodes."""
        return bool(self._questions) and time.monotonic() < self._answer_by

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to take it over, for JSON, and descriptors; it keeps them.

        Pre-condition: it has loaded its app.
        """
        assert self.facts is not None
        assert self.settings is not None
        facts = {
            "pid": self.process.pid,
            "name": self._name,
            "facts": self.facts.as_json(),
            "settings": as_texts(self.settings),
            "asked": self._asked,
        }
        return facts, [self.process.pidfd, self._box.fileno()] if self.is_open else []

    @classmethod
    def taken_over(cls, facts: Mapping[str, Any], descriptors: Sequence[int]) -> LoaderHandle:
        """Return the loader that another program has handed over; it may have ended.

        Args:
            facts: As returned by ``handed_over``.
            descriptors: Likewise; the new object owns them.

        Raises:
            ValueError: It is not a child of this process.
            OSError: A descriptor is of something else.
        """
        if descriptors:
            pidfd, channel = descriptors
            process = ChildProcess.taken_over(facts["pid"], pidfd)
            sock = channels.end_of(channel)
            sock.setblocking(False)
            sock.set_inheritable(False)
        else:
            process = ChildProcess.ended(facts["pid"])
            sock = socket.socket(socket.AF_UNIX)
            sock.close()
        loader = cls(process, LetterBox(sock), facts["name"])
        loader.facts = AppFacts.from_json(facts["facts"])
        loader.settings = from_texts(known_texts(facts["settings"]))
        loader.is_open = bool(descriptors)
        loader._asked = facts["asked"]
        loader.files = loader.facts.files
        return loader

    @classmethod
    def fork(cls, name: str, work: Callable[[LetterBox], None]) -> LoaderHandle:
        """Fork a loader from this process.

        Args:
            name: Of what it loads.
            work: What it does, with its end of the channel.

        Raises:
            OSError: There are no descriptors or processes left.
        """

        def become(box: LetterBox) -> NoReturn:
            status = 1
            try:
                work(box)
                status = 0
            finally:
                os._exit(status)

        return cls._start(name, become)

    @classmethod
    def execute(cls, name: str, program: Program, told: Mapping[str, Any]) -> LoaderHandle:
        """Start a loader as a new program.

        Args:
            name: Of what it loads.
            program: The program.
            told: What else it is told; JSON.

        Raises:
            OSError: There are no descriptors or processes left.
        """
        master = os.getpid()

        def become(box: LetterBox) -> NoReturn:
            try:
                os.setpgid(0, 0)
                os.set_inheritable(box.fileno(), True)
                facts = {"channel": box.fileno(), "master": master, "loader": os.getpid(), **told}
                program.execute({VARIABLE: json.dumps(facts)})
            except OSError as error:
                why = f"cannot load {name}: {error.filename or program.directory}: {error.strerror}"
                box.send("FAILED", {"why": why, "usage": False})
            finally:
                os._exit(1)

        return cls._start(name, become)

    @classmethod
    def _start(cls, name: str, become: Callable[[LetterBox], NoReturn]) -> LoaderHandle:
        ours, theirs = channels.pair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with signals_blocked() as before:
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    signal_at_parents_end(signal.SIGKILL)
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                    become(LetterBox(theirs))
            undo.callback(os.waitpid, pid, 0)
            undo.callback(os.kill, pid, signal.SIGKILL)
            process = ChildProcess(pid)
            undo.pop_all()
        ours.setblocking(False)
        return cls(process, LetterBox(ours), name)

    def wait_until_loaded(self, seconds: float) -> None:
        """Wait until the app is loaded; before there is a loop.

        Raises:
            LoadError: It was not.
        """
        give_up_at = time.monotonic() + seconds
        with new_selector() as selector:
            selector.register(self._box, selectors.EVENT_READ)
            while self.facts is None and self.failure is None:
                if not selector.select(max(0.0, give_up_at - time.monotonic())):
                    self.give_up(seconds)
                self._hear()
        if self.failure is not None:
            raise self.failure

    def give_up(self, seconds: float) -> None:
        """End a load that takes too long; its stacks are written to standard error before."""
        self.process.send(DUMP)
        self.process.is_dead(_DUMP_WAIT)
        self.process.kill()
        self._fail(f"cannot load {self._name}: it takes longer than {seconds:g} s (load_timeout)")

    def watch(self, selector: selectors.BaseSelector, ears: Ears) -> None:
        """Have the master's loop hear it."""
        self._selector, self._ears = selector, ears
        selector.register(self._box, selectors.EVENT_READ, self._hear)

    def send(self, kind: str, facts: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a letter; the descriptors stay the caller's.

        Raises:
            OSError: It cannot be sent, or not now.
        """
        if not self.is_open:
            raise OSError("the loader has ended")
        self._box.send(kind, facts, descriptors)

    def ask_error(
        self, line: bytes, eol: bytes, why: str, local: str, reply: Callable[[bytes], None]
    ) -> None:
        """Have it encode the error for a request; ``reply`` gets the bytes, b"" if there are none.

        ``local`` is the server's end of the connection, as ``local_name`` returns it.
        """
        self._asked += 1
        facts = {
            "number": self._asked,
            "line": line.decode("latin-1"),
            "eol": eol.decode("latin-1"),
            "why": why,
            "local": local,
        }
        try:
            self.send("ENCODE", facts)
        except OSError:
            reply(b"")
        else:
            self._questions[self._asked] = reply
            self._answer_by = time.monotonic() + _ANSWER_WAIT

    def kill(self, why: str) -> None:
        """Kill it, because it does not do its work."""
        if self.is_open:
            log.error("loader killed pid=%d why=%r", self.process.pid, why)
            self.process.kill()

    def release(self) -> None:
        """Have it end; its workers live on. Nothing waits for it."""
        if self.is_open:
            self._forget()
            assert self._selector is not None
            self._selector.register(self.process.pidfd, selectors.EVENT_READ, self._released)

    def _released(self) -> None:
        assert self._selector is not None
        if self.process.reap() is not None:
            self._selector.unregister(self.process.pidfd)
            self.process.close()

    def close(self) -> None:
        """Have it end and wait for that, for a while; at the end of the master."""
        if self.is_open:
            self._forget()
            if not self.process.is_dead(_END_WAIT):
                self.process.kill()
                self.process.is_dead(_END_WAIT)
            self.process.reap()
            self.process.close()

    def abandon(self) -> None:
        """Close this process's copies, in a new helper process."""
        if self.is_open:
            self.is_open = False
            self._box.close()
            self.process.close()

    def _hear(self) -> None:
        """Act on all letters that have come, and on the loader's end."""
        try:
            while letter := self._box.receive(wait=False):
                self.heard_at = time.monotonic()
                with contextlib.closing(letter):
                    self._act_on(letter)
        except EOFError:
            self._note_end("")
        except (ValueError, TypeError, KeyError, AttributeError, OSError, SetupError) as error:
            self._note_end(f"it sends nonsense: {error!r}")

    def _act_on(self, letter: Letter) -> None:
        facts, ears = letter.facts, self._ears
        match letter.kind:
            case "LOADED":
                self.settings = from_texts(facts["settings"])
                self.facts = AppFacts.from_json(facts["facts"])
                self.files = self.facts.files
            case "FAILED":
                self.files = tuple(map(str, facts.get("files", ())))
                self._fail(str(facts["why"]), is_usage=bool(facts["usage"]))
            case "SPAWNED" if ears is not None and letter.is_cut:
                # Its channel is closed here now, so the worker leaves.
                ears.not_born(int(facts["slot"]), os.strerror(errno.EMFILE))
            case "SPAWNED" if ears is not None:
                (pidfd,) = letter.descriptors
                letter.descriptors.clear()
                ears.born(int(facts["slot"]), int(facts["pid"]), pidfd)
            case "NOT_SPAWNED" if ears is not None:
                ears.not_born(int(facts["slot"]), str(facts["why"]))
            case "ENCODED":
                if reply := self._questions.pop(facts["number"], None):
                    reply(facts["reply"].encode("latin-1"))
            case _:
                raise ValueError(letter.kind)

    def _fail(self, why: str, *, is_usage: bool = False) -> None:
        if self.failure is None:
            self.failure = LoadError(why, is_usage=is_usage)

    def _note_end(self, why: str) -> None:
        """Note that it has ended, or ends because of what it has done."""
        self._forget()
        if not self.process.is_dead(_END_WAIT if not why else 0.0):
            why = why or "it has closed its channel"
            self.process.kill()
            self.process.is_dead(_END_WAIT)
        status = self.process.reap()
        self.process.close()
        if not why and status == CLOSED_CHANNEL:
            why = (
                "its code has closed all descriptors, as os.closerange does; linepool needs those that it"
                " has opened itself"
            )
            self._fail(f"cannot load {self._name}: {why}")
        if not why and status is not None:
            why = f"exit status {status}" if status >= 0 else f"signal {signal_name(-status)}"
        self._fail(f"cannot load {self._name}: the process that loads it has ended: {why}")
        self.end = why
        if self._ears is not None:
            self._ears.loader_ended(self)

    def _forget(self) -> None:
        """Hear it no more, and answer what it was asked."""
        self.is_open = False
        if self._selector is not None:
            self._selector.unregister(self._box)
        self._box.close()
        questions, self._questions = self._questions, {}
        for reply in questions.values():
            reply(b"")
