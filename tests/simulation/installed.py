"""Puts the simulated kernel in the place of the real one, in all modules of linepool, for a while."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from linepool import core, faults
from linepool.kernel.pidfd import ChildProcess, OpenFiles
from linepool.loader import loader
from linepool.master import (
    load,
    loader_handle,
    master,
    parker_handle,
    spawner,
    takeover,
    upgrade,
    watchdog,
)
from linepool.parker import configured, parker
from linepool.worker import evacuation, interrupts, table
from linepool.worker.connection import Connection
from tests.simulation import app as apps
from tests.simulation import calls
from tests.simulation.loaders import (
    SimulatedBirths,
    SimulatedHandle,
    facts_of,
    settings_of,
    texts_of,
)
from tests.simulation.machine import here, machine
from tests.simulation.processes import SimulatedHelper
from tests.simulation.upgrades import SimulatedDryRun

_FLOORS = tuple(
    f"linepool.{name}"
    for name in ("ipc", "kernel", "master", "parker", "worker", "loader", "conversation")
)
_UNEXPECTED = ("dropped", "connection ended", "a handler has closed")
_REAL_LOG = logging.getLogger("linepool")


class _Log:
    """A logger: what nobody expects is a violation."""

    def _note(self, level: str, text: str, *values: Any, **_: Any) -> None:
        if machine.kernel.traced is not None:
            machine.kernel.trace(f"log {level}: {text}", *values)

    def debug(self, text: str, *values: Any, **more: Any) -> None:
        self._note("debug", text, *values)

    def info(self, text: str, *values: Any, **more: Any) -> None:
        self._note("info", text, *values)

    def warning(self, text: str, *values: Any, **more: Any) -> None:
        self._note("warning", text, *values)

    def error(self, text: str, *values: Any, **more: Any) -> None:
        self._note("error", text, *values)
        account = apps.account[-1]
        # What LeaveNow interrupts may be half done, and its process ends.
        if text.startswith(_UNEXPECTED) and not account.stops_at_once:
            machine.kernel.fail(f"{here().name}: {text % values}")

    def exception(self, text: str, *values: Any, **more: Any) -> None:
        self._note("error", text, *values)
        kind, error, _ = sys.exc_info()
        name = kind.__name__ if kind else ""
        machine.kernel.fail(f"{here().name}: {text % values}: {name}: {error}")

    def log(self, _level: int, text: str, *values: Any, **more: Any) -> None:
        self._note("info", text, *values)


class _Faulthandler:
    """Writes "the stack" when the master asks for it."""

    def unregister(self, _number: int) -> None:
        pass

    def register(self, number: int, file: int, **_: Any) -> None:
        memory: Any = here().file(file)

        def write(_number: int, _frame: object) -> None:
            memory.data += b"Current thread\n"

        here().handlers[int(number)] = write


class _Processors:
    def are_bottleneck(self, _pids: object, _every: float) -> bool:
        return False


def _modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if name.startswith("linepool.") and not name.startswith("linepool.core."):
            yield module


def _substitutes(module: ModuleType) -> Iterator[tuple[str, Any]]:
    calls_kernel = module.__name__.startswith(_FLOORS)
    for name, value in vars(module).items():
        if isinstance(value, ModuleType):
            if calls_kernel and value in calls.SUBSTITUTES:
                yield name, calls.SUBSTITUTES[value]
        elif value is _REAL_LOG:
            yield name, _LOG
        elif callable(value) and getattr(value, "__module__", "") in ("time", None):
            with contextlib.suppress(TypeError):
                if value in calls.FUNCTIONS:
                    yield name, calls.FUNCTIONS[value]


_LOG = _Log()
_MODELS: list[tuple[Any, str, Any]] = [
    (OpenFiles, "take_descriptor", calls.take_descriptor),
    (OpenFiles, "sockets", calls.sockets),
    (watchdog, "holder_of", calls.holder_of),
    (ChildProcess, "unreaped", set()),
    (core, "compiled", False),
    (faults, "_ids", None),
    (table, "_Connection", Connection),
    (load, "Processors", _Processors),
    (load, "times_throttled", int),
    (master, "announce", lambda *_, **__: None),
    (parker_handle, "Helper", SimulatedHelper),
    (parker_handle, "set_title", lambda *_: None),
    (parker, "open_files", lambda: len(here().fds)),
    (parker, "gc", SimpleNamespace(disable=lambda: None)),
    (loader, "Births", SimulatedBirths),
    (loader, "gc", SimpleNamespace(collect=lambda: None, freeze=lambda: None)),
    (loader_handle, "from_texts", settings_of),
    (loader_handle, "AppFacts", SimpleNamespace(from_json=facts_of)),
    (loader_handle, "as_texts", texts_of),
    (loader_handle, "known_texts", dict),
    (takeover, "as_texts", texts_of),
    (takeover, "known_texts", dict),
    (takeover, "from_texts", settings_of),
    (takeover, "AppFacts", SimpleNamespace(from_json=facts_of)),
    (takeover, "LoaderHandle", SimulatedHandle),
    (upgrade, "DryRun", SimulatedDryRun),
    (spawner, "as_texts", texts_of),
    (parker_handle, "as_texts", texts_of),
    (configured, "from_texts", settings_of),
    (configured, "AppFacts", SimpleNamespace(from_json=facts_of)),
    (evacuation, "signals_blocked", contextlib.nullcontext),
    (evacuation, "_stacks", lambda: "Current thread\n"),
    (interrupts, "faulthandler", _Faulthandler()),
]


@contextlib.contextmanager
def simulated_kernel() -> Iterator[None]:
    """Have all of linepool in this process call the simulated kernel; nothing else may run meanwhile."""
    with contextlib.ExitStack() as undo:
        for module in _modules():
            for name, value in list(_substitutes(module)):
                undo.enter_context(mock.patch.object(module, name, value))
        for owner, name, value in _MODELS:
            undo.enter_context(mock.patch.object(owner, name, value))
        yield
