"""The simulated loaders: their letters and their loop are real; what they load and their forks are models.

The master's end of each is real too. What goes wrong with a new generation is chosen when its loader starts.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from linepool.facts import AppFacts
from linepool.ipc import channel as channels
from linepool.ipc.letters import Letter, LetterBox, unpacked
from linepool.kernel.pidfd import ChildProcess
from linepool.loader.births import NotBorn
from linepool.loader.loader import Loader
from linepool.master.loader_handle import LoaderHandle
from linepool.service import Service
from linepool.settings import Settings
from tests.simulation import app as apps
from tests.simulation.epolls import IN, OUT, File
from tests.simulation.files import Memory
from tests.simulation.listeners import SimulatedListener
from tests.simulation.machine import file_of, here
from tests.simulation.process import Process
from tests.simulation.sockets import Socket
from tests.simulation.upgrades import SimulatedProgram
from tests.simulation.workers import run_worker

if TYPE_CHECKING:
    from tests.simulation.world import World

LOAD_TIMEOUT = 0.5
_KILL = 9
_HANGS_S = 3.0
_FORK_S, _LOADS_S = 0.0005, 0.03
_REFUSES, _HANGS, _DIES, _FIRST_FAILS, _WORKERS_DIE = range(1, 6)
_ODDS = 12
"""One of so many loads fails in each of these ways."""


class _BlockingSocket(Socket):
    """A socket that waits."""

    def recvmsg(self, size: int, control: int, flags: int) -> tuple[bytes, Any, int, None]:
        """Return a message."""
        self._await(IN)
        return super().recvmsg(size, control, flags)

    def sendmsg(self, parts: Any, control: list[Any], flags: int = 0) -> int:
        """Send a message."""
        self._await(OUT)
        return super().sendmsg(parts, control, flags)

    def _await(self, event: int) -> None:
        file = file_of(self._number)
        file.kernel.wait(lambda: file.events() & event, math.inf, (file.sleepers,))


class SimulatedHandle(LoaderHandle):
    """The master's end of a loader, which has no room for an order now and then."""

    world: World

    def send(self, kind: str, facts: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a letter."""
        if self.world.may_fail and self.world.kernel.choices.chance(0.02):
            raise BlockingIOError(11, "the loader does not read")
        super().send(kind, facts, descriptors)


class SimulatedOffice:
    """Starts loaders; what an upgrade must know of besides is always the same."""

    resolved = None
    is_quiet = True
    told: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, world: World) -> None:
        self._world = world
        self.program = SimulatedProgram()
        self.loaders: list[Process] = []

    def configure_log(self, _settings: Settings) -> None:
        """Do nothing: there is no log."""

    def handed_over(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def start_loader(self, _close_inherited: object) -> LoaderHandle:
        """Start a loader for another generation."""
        below = self._world.kernel.choices.below
        goes_wrong = below(_ODDS) if self._world.spoils_loads else 0
        return self._start(goes_wrong, loads=True)

    def first(self, settings: Settings) -> LoaderHandle:
        """Return a loader that has loaded its app."""
        handle = self._start(0, loads=False)
        handle.facts, handle.settings = apps.facts, settings
        return handle

    def _start(self, goes_wrong: int, *, loads: bool) -> LoaderHandle:
        world, kernel = self._world, self._world.kernel
        ours, theirs = channels.pair()
        process = kernel.fork("loader", world.master.pid)
        process.at_parents_end = _KILL
        number = process.install(here().file(theirs.fileno()))
        theirs.close()
        body = functools.partial(_run_loader, world, number, goes_wrong, loads=loads)
        kernel.start(process, body)
        self.loaders.append(process)
        handle = SimulatedHandle(ChildProcess(process.pid), LetterBox(ours), "simulated")
        handle.world = world
        return handle


def _run_loader(world: World, number: int, goes_wrong: int, *, loads: bool) -> None:
    """Be a loader, from its start to its end."""
    sock: Any = _BlockingSocket(fileno=number)
    loader = SimulatedLoader(world, LetterBox(sock), goes_wrong)
    if not loads or loader.load():
        loader.serve()


class SimulatedLoader(Loader):
    """The loader's process."""

    def __init__(self, world: World, box: LetterBox, goes_wrong: int) -> None:
        super().__init__(box, world.master.pid, lambda *_: None)
        self._world, self._goes_wrong = world, goes_wrong

    def load(self) -> bool:
        """Load the app; return whether that succeeds."""
        kernel = self._world.kernel
        kernel.sleep(_LOADS_S)
        if self._goes_wrong == _REFUSES:
            self._box.send("FAILED", {"why": "a syntax error", "usage": False})
        elif self._goes_wrong == _DIES:
            raise SystemExit(1)
        elif self._goes_wrong == _HANGS:
            kernel.sleep(_HANGS_S)
        else:
            self._box.send("LOADED", loaded_facts(self._world.settings))
            return True
        return False

    def serve(self) -> None:
        """Serve the master to its end."""
        image: Any = SimpleNamespace(first=apps.service, world=self._world, loader=self)
        # The master may close the channel.
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            self._serve(image)

    def _spawn(self, births: Any, letter: Letter) -> None:
        """Fork a worker, and have it begin: not before the master is told, see docs/reliability.md."""
        births.begin = _nothing
        super()._spawn(births, letter)
        births.begin()

    def becomes(self) -> str:
        """Return what a new worker of this generation does; "": it serves."""
        if self._goes_wrong == _FIRST_FAILS:
            return "fails"
        return "dies" if self._goes_wrong == _WORKERS_DIE else ""

    def _become_background(self) -> None:
        pass

    def _started(self, letter: Letter, image: Any) -> Any:
        facts = letter.facts
        parts = unpacked(facts["parts"], letter.descriptors)
        listeners = [
            SimulatedListener(image.world.listener, parts[name][1][0])
            for name in facts["listeners"]
        ]
        return SimpleNamespace(image=image, generation=facts["generation"], listeners=listeners)


class SimulatedBirths:
    """Forks workers: a model."""

    def __init__(self, _box: LetterBox, _master: int, shared: Any) -> None:
        self._shared = shared
        self.begin: Callable[[], None] = _nothing

    def service_at(self, _local: str) -> Service:
        """Return the app."""
        return apps.service

    def spawn(self, letter: Letter) -> tuple[int, int]:
        """Fork a worker."""
        world: World = self._shared.image.world
        kernel = world.kernel
        if letter.is_cut or (world.may_fail and kernel.choices.chance(0.02)):
            letter.close()
            raise NotBorn("no process left")
        kernel.sleep(_FORK_S)
        slot, generation = letter.facts["slot"], self._shared.generation
        loader = here()
        worker = kernel.fork(f"worker{slot}", loader.pid)
        worker.has_holder = True
        worker.at_parents_end = _KILL
        files: list[File] = [loader.file(number) for number in letter.descriptors]
        numbers = [worker.install(file) for file in (*files, Memory(kernel))]
        worker.fds[2] = worker.fds.pop(numbers.pop())  # standard error
        worker.facts, worker.generation = slot, generation
        becomes = self._shared.image.loader.becomes()
        body = functools.partial(run_worker, world, worker, letter.facts, numbers, becomes)
        self.begin = functools.partial(_begin, world, worker, body)
        letter.close()
        return worker.pid, loader.install(worker.entry)


def _begin(world: World, worker: Process, body: Callable[[], object]) -> None:
    """Have a new worker, which is a child of the master by now, begin."""
    worker.parent, worker.at_parents_end = world.master.pid, 0
    if world.master.status is not None:
        worker.parent = 1
    if worker.status is None:  # else it was killed before
        world.kernel.start(worker, body)


def _nothing() -> None:
    """Do nothing."""


# -- settings and facts are not converted: it takes as long as much of a schedule


def loaded_facts(settings: Settings) -> dict[str, Any]:
    """Return what a loader tells the master that has loaded its app."""
    return {"facts": {}, "settings": texts_of(settings)}


told: list[Settings] = []
"""All that were told in this schedule."""


def texts_of(settings: Settings) -> Any:
    """Return what stands for settings in letters and arguments."""
    told.append(settings)
    return {"told": len(told) - 1}


def settings_of(texts: Mapping[str, int]) -> Settings:
    """Return the settings that it stands for."""
    return told[texts["told"]]


def facts_of(_facts: Mapping[str, Any]) -> AppFacts:
    """Return what is known of the app."""
    return apps.facts
