"""Starting a server: from what is to be served to a running master.

The master never loads the app. Its first loader is a fork of it; that loads the app, and tells the master its
settings.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve

from linepool.core import about
from linepool.errors import SetupError
from linepool.facts import AppFacts
from linepool.ipc.incidents import IncidentMemory
from linepool.ipc.letters import LetterBox
from linepool.kernel import features, way_back
from linepool.kernel.binding import open_listeners
from linepool.kernel.listeners import Listener
from linepool.kernel.program import Program
from linepool.kernel.rlimit import bounded_by_files, open_files
from linepool.kernel.shortage import shortage_explained
from linepool.kernel.standard import fill_standard_descriptors
from linepool.kernel.title import set_title
from linepool.master.announcing import announce_listeners
from linepool.master.generation import Generation
from linepool.master.loader_handle import LoaderHandle
from linepool.master.master import Master
from linepool.master.spawner import Part
from linepool.master.takeover import Inherited, takeover_facts
from linepool.master.trace import TraceWriter
from linepool.master.watched import Watched
from linepool.operate import access_output, before_load, logs
from linepool.operate.before_fork import warn_of_threads
from linepool.operate.bridging import Bridging
from linepool.operate.commands import commands
from linepool.operate.control import Control
from linepool.operate.exporting import Exporting, listeners_of, open_places
from linepool.operate.incident_file import open_incidents, taken_over
from linepool.operate.loading import Source, fork_loader, given_channel, run_loader
from linepool.operate.log_config import apply as apply_log_config
from linepool.operate.log_file import LogFile
from linepool.operate.memory_check import MemoryCheck
from linepool.operate.notify import notifier
from linepool.operate.pid_file import PidFile
from linepool.operate.places import own_path
from linepool.operate.replaced import dry_run, take_over
from linepool.operate.socket_files import SocketFiles
from linepool.operate.supervision import passed_on
from linepool.operate.watching import Watching, check_watchfiles
from linepool.settings import Settings

log = logging.getLogger("linepool")


def serve(source: Source, on_listening: Callable[[list[Listener]], None] | None = None) -> int:
    """Serve an app until it is stopped; return the exit status: 0, or 1 if it never came up.

    In a process that is to be a loader, load the app, and do not return.

    Args:
        source: What to serve.
        on_listening: Called with the listeners once they are open, before the first worker.

    Raises:
        SetupError: It cannot start; the text says why.
    """
    if threading.current_thread() is not threading.main_thread():
        raise SetupError(
            "a server runs in the main thread only, where Python handles signals; from another thread,"
            " start it as a process of its own"
        )
    if given := given_channel():
        run_loader(*given, source)
    told = takeover_facts(os.environ)
    os.environ.pop(way_back.VARIABLE, None)
    if told is not None:
        if told.get("dry"):
            return dry_run(told)
        return take_over(told, lambda inherited: _inherit(inherited, source, told))
    if not source.in_foreground:
        warn_of_threads()
    fill_standard_descriptors()
    for name in ("log_file", "access_log"):
        before_load.make_log_file(source.fixed.get(name, ""), source.identity, name)
    path = source.process.pid_file
    with contextlib.closing(PidFile(path)) if path else contextlib.nullcontext() as pid_file:
        if source.in_foreground:
            # It brings the debugger along, which no other server needs.
            from linepool.operate.foreground import serve_here  # noqa: PLC0415

            return serve_here(source, on_listening)
        return _load_and_serve(source, pid_file, on_listening)


def _load_and_serve(
    source: Source,
    pid_file: PidFile | None,
    on_listening: Callable[[list[Listener]], None] | None,
) -> int:
    """Serve what the first loader loads."""
    pid = os.getpid()

    def become_loader(box: LetterBox) -> None:
        if pid_file is not None:
            pid_file.abandon()
        fork_loader(box, pid, source)

    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()  # what is in the buffer would be written by the loader again
    # What is imported stays out of the collections of all processes, and so stays shared by them.
    gc.freeze()
    with shortage_explained("fork"):
        loader = LoaderHandle.fork(source.name, become_loader)
    try:
        with shortage_explained("start"):
            loader.wait_until_loaded(source.process.load_timeout)
            master = _master(source, loader, pid_file, on_listening)
        try:
            return master.run()
        except Exception:
            log.exception("master failed pid=%d", pid)
            return 1
    finally:
        loader.close()


def _master(
    source: Source,
    loader: LoaderHandle,
    pid_file: PidFile | None,
    on_listening: Callable[[list[Listener]], None] | None,
) -> Master:
    """Return the master, open, for what a loader has loaded."""
    facts = loader.facts
    assert facts is not None
    settings = _set_up(source, facts, loader)
    source = _for_reload(source, settings)
    unwanted = source.supervision.close_strays(settings.bind)
    opened = max(facts.opened, open_files())
    settings = bounded_by_files(settings, publishes=facts.publishes, opened=opened)
    listeners = open_listeners(settings)
    with contextlib.ExitStack() as undo:
        for listener in listeners:
            undo.callback(listener.remove)
        generation = Generation(1, facts, settings, loader)
        office = _Office(source, source.program.resolved if source.program else None)
        office.pid_file = pid_file
        office.incidents = open_incidents(settings.incidents)
        master = Master([generation], listeners, office)
        master.reopening.add(lambda: access_output.reopen(master.settings))
        master.reopening.add(logs.reopen)
        if pid_file is not None:
            master.watch(pid_file)
        if settings.record:
            master.record(TraceWriter(settings.record))
        office.control = _control(master, settings.control)
        office.exporting = _exporting(master, office, open_places(settings))
        office.bridging = _bridging(master, office)
        for watched in _watched(master, office, source, unwanted):
            master.watch(watched)
        undo.pop_all()
    if source.program is not None:
        before_load.warn_of_root(source.process)
    log.info(
        "starting %s scheme=%s workers=%s request_timeout=%g max_connections=%d",
        about,
        settings.scheme,
        settings.workers,
        settings.request_timeout,
        settings.max_connections,
    )
    if "t" in sys.abiflags:
        log.warning("free-threaded Python is not supported: use the usual build of Python")
    for name, cost in features.missing():
        log.info("no %s: %s", name, cost)
    announce_listeners(listeners, settings)
    if on_listening is not None:
        on_listening(listeners)
    master.open()
    return master


def _for_reload(source: Source, settings: Settings) -> Source:
    """Return what is served; with the setting reload, loads write no compiled files.

    A source that changed during a load would be taken for that which was compiled.

    Raises:
        SetupError: The package that the watcher needs is missing.
    """
    if not settings.reload:
        return source
    check_watchfiles()
    assert source.program is not None
    return evolve(source, program=source.program.with_option("-B"))


def _inherit(
    inherited: Inherited, source: Source, told: Mapping[str, Any]
) -> tuple[Master, Control | None]:
    """Return a master for what another program has handed over, and its control socket."""
    generations = inherited.generations()
    with contextlib.suppress(SetupError):  # it has changed meanwhile; the reload that follows tells
        apply_log_config(generations[-1].settings.log_config)
    log_file = inherited.piece("log_file")
    logs.set_up(generations[-1].settings, LogFile.taken_over(*log_file) if log_file else None)
    if log_limit := inherited.piece("log"):
        logs.share_limit(*log_limit)
    program = inherited.program("started")
    is_back = bool(told.get("failure"))  # its names lead to another program by now
    resolved = inherited.program("resolved") if is_back else program.resolved
    office = _Office(evolve(source, program=program), resolved)
    office.incidents = taken_over(inherited.piece("incidents"), generations[-1].settings.incidents)
    set_title("master", generations[-1].facts.name)
    master = Master(generations, inherited.listeners(), office, inherited)
    master.reopening.add(lambda: access_output.reopen(master.settings))
    master.reopening.add(logs.reopen)
    if trace := inherited.trace():
        master.record(trace)
    if pid_file := inherited.piece("pid_file"):
        office.pid_file = PidFile.taken_over(pid_file[0]["path"], *pid_file[1])
        master.watch(office.pid_file)
    if control := inherited.piece("control"):
        office.control = Control.taken_over(commands(master), *control)
    office.exporting = _exporting(master, office, listeners_of(inherited.piece))
    office.bridging = _bridging(master, office)
    for watched in _watched(master, office, source, is_new=False):
        master.watch(watched)
    return master, office.control


class _Office:
    """What the master has done for it here."""

    def __init__(self, source: Source, resolved: Program | None) -> None:
        self.program = source.program
        self.resolved = resolved
        self.told = passed_on(source.supervision)
        self.control: Control | None = None
        self.exporting: Exporting | None = None
        self.bridging: Bridging | None = None
        self.pid_file: PidFile | None = None
        self.incidents: IncidentMemory
        self._source = source

    @property
    def is_quiet(self) -> bool:
        """Whether ``handed_over`` would lose nothing."""
        return self.control is None or self.control.is_quiet

    def handed_over(self) -> dict[str, Part]:
        """Return what another program needs to take over the log, control socket, pid file and incidents."""
        control = self.control.handed_over() if self.control else None
        pid_file = self.pid_file
        pieces = {
            "log": logs.limit_handed_over(),
            "log_file": logs.file_handed_over(),
            "control": control,
            **(self.exporting.handed_over() if self.exporting else {}),
            "incidents": self.incidents.handed_over(),
            "pid_file": ({"path": pid_file.path}, [pid_file.descriptor]) if pid_file else None,
        }
        return {name: piece for name, piece in pieces.items() if piece is not None}

    def start_loader(self, close_inherited: Callable[[], None]) -> LoaderHandle:
        """Start a loader for the code as it is now: the same command, or a fork."""
        source, master = self._source, os.getpid()
        if self.program is not None:
            return LoaderHandle.execute(source.name, self.program, self.told)

        def work(box: LetterBox) -> None:
            close_inherited()
            fork_loader(box, master, source)

        return LoaderHandle.fork(source.name, work)

    def become_user(self) -> None:
        """Have this process, a new helper, become the user that serves."""
        before_load.become(self._source.identity, self._source.process)

    def log_limit(self) -> Part | None:
        """Return the limit of the log, to be handed over."""
        return logs.limit_handed_over()

    def configure_log(self, settings: Settings) -> None:
        """Have the log follow other settings."""
        logs.configure(settings)


def _set_up(source: Source, facts: AppFacts, loader: LoaderHandle) -> Settings:
    """Set up the master's process; return the settings that it works with."""
    settings = loader.settings
    assert settings is not None
    if source.identity is not None:  # the app's code may have said anything
        settings = loader.settings = evolve(settings, **source.fixed)
    apply_log_config(settings.log_config)
    logs.set_up(settings)
    if source.program is not None:
        set_title("master", facts.name)
    return settings


def _watched(
    master: Master,
    office: _Office,
    source: Source,
    unwanted: Sequence[str] = (),
    *,
    is_new: bool = True,
) -> Iterator[Watched]:
    """Yield what the master's loop serves beside its workers; ``is_new``: this server has just begun."""
    if office.control is not None:
        yield office.control
    if office.exporting is not None:
        yield office.exporting
    if office.bridging is not None:
        yield office.bridging
    if source.supervision.notify_socket:
        yield notifier(master, source.supervision, unwanted, was_ready=not is_new)
    if master.settings.reload:
        yield Watching(
            master, source.files, lambda: before_load.become(source.identity, source.process)
        )
    yield logs.LogReporter()
    yield MemoryCheck(master)
    yield SocketFiles(master)


def _exporting(
    master: Master, office: _Office, listeners: Mapping[str, Listener]
) -> Exporting | None:
    """Return what keeps an exporter alive that serves there; None: there is nowhere."""
    if not listeners:
        return None
    if office.control is None:
        for listener in listeners.values():
            listener.remove()
        raise SetupError(f"{next(iter(listeners))} needs the control socket: give --control PATH")
    exporting = Exporting(master, listeners, office.control.path, office.become_user)
    master.exporter = exporting
    return exporting


def _bridging(master: Master, office: _Office) -> Bridging | None:
    """Return what keeps a bridge to other machines alive; None: it is off."""
    if not master.settings.bridge:
        return None
    master.bridge = bridging = Bridging(master, office.become_user)
    return bridging


def _control(master: Master, path: str) -> Control | None:
    """Open the control socket; None: it is off, or other users can write to all places for it."""
    if path == "off":
        return None
    try:
        found = own_path() if path == "auto" else path
        if found is None:
            log.warning("no control socket: no directory is this user's alone; give --control PATH")
            return None
        path = found
        control = Control(commands(master), path)
    except OSError as error:
        reason = error.strerror or error
        path = error.filename or path
        raise SetupError(
            f"control: cannot listen on {path}: {reason}; give --control PATH or off"
        ) from None
    except SetupError as error:
        raise SetupError(f"control: {error}") from None
    log.info("control socket path=%s", path)
    return control
