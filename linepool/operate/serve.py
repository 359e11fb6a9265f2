"""Starting a server: from what is to be served to a running master.

The master never loads the app. Its first loader is a fork of it; that loads the app, and tells the master its
settings.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from attrs import evolve, field, frozen

from linepool.address import parse_address
from linepool.app import App
from linepool.core import about
from linepool.errors import SetupError
from linepool.facts import AppFacts
from linepool.ipc.letters import LetterBox
from linepool.kernel.listeners import Listener, open_listeners
from linepool.kernel.privileges import Identity
from linepool.kernel.program import Program
from linepool.kernel.rlimit import bounded_by_files
from linepool.kernel.standard import fill_standard_descriptors
from linepool.kernel.title import set_title
from linepool.loader.image import Image
from linepool.loader.loader import Loader
from linepool.master import takeover
from linepool.master.announcing import announce
from linepool.master.generation import Generation
from linepool.master.loader_handle import VARIABLE, LoaderHandle, loader_facts
from linepool.master.master import Master
from linepool.master.spawner import Part
from linepool.master.takeover import Inherited, takeover_facts
from linepool.master.trace import TraceWriter
from linepool.master.watched import Watched
from linepool.operate import before_load, logs
from linepool.operate.before_fork import refuse_patches, warn_of_threads
from linepool.operate.commands import commands
from linepool.operate.control import Control
from linepool.operate.log_file import LogFile
from linepool.operate.memory_check import MemoryCheck
from linepool.operate.notify import notifier
from linepool.operate.pid_file import PidFile
from linepool.operate.places import own_path
from linepool.operate.replaced import dry_run, take_over
from linepool.operate.supervision import UNSUPERVISED, Supervision, passed_on
from linepool.operate.target import explained
from linepool.operate.watching import Watching, check_watchfiles
from linepool.protocols.base import Limits
from linepool.settings import ProcessSettings, Settings
from linepool.worker.ending import own_exit_functions

log = logging.getLogger("linepool")

_LONGEST_END = 5  # seconds for the exit functions of a loader


@frozen
class Source:
    """What is to be served.

    Attributes:
        name: Of the target or script, for messages.
        load: Returns the app and all settings, with the log set up. Called in the loader.
        process: What the processes are. All of it is in effect already, but for the user.
        identity: The user that loads the app and serves; None: that of this process.
        fixed: Settings that root does not take from the app, such as those that name files.
        supervision: How this process is supervised.
        program: What loads it anew: the one that this process was started with. None: a fork does.
        files: Where its settings may be.
    """

    name: str
    load: Callable[[], tuple[App, Settings]]
    process: ProcessSettings
    identity: Identity | None = None
    fixed: Mapping[str, Any] = field(factory=dict)
    supervision: Supervision = UNSUPERVISED
    program: Program | None = None
    files: Sequence[str] = ()


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
    if given := _given_channel():
        _run_loader(*given, source)
    told = takeover_facts(os.environ)
    os.environ.pop(takeover.VARIABLE, None)
    if told is not None:
        if told.get("dry"):
            return dry_run(told)
        return take_over(told, lambda inherited: _inherit(inherited, source, told))
    warn_of_threads()
    fill_standard_descriptors()
    before_load.make_log_file(source.fixed.get("log_file", ""), source.identity)
    path = source.process.pid_file
    with contextlib.closing(PidFile(path)) if path else contextlib.nullcontext() as pid_file:
        return _load_and_serve(source, pid_file, on_listening)


def _load_and_serve(
    source: Source,
    pid_file: PidFile | None,
    on_listening: Callable[[list[Listener]], None] | None,
) -> int:
    """Serve what the first loader loads."""
    master = os.getpid()

    def become_loader(box: LetterBox) -> None:
        if pid_file is not None:
            pid_file.abandon()
        _fork_loader(box, master, source)

    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()  # what is in the buffer would be written by the loader again
    try:
        loader = LoaderHandle.fork(source.name, become_loader)
    except OSError as error:
        raise SetupError(f"cannot fork: {error.strerror}") from None
    try:
        loader.wait_until_loaded(source.process.load_timeout)
        return _serve(source, loader, pid_file, on_listening)
    finally:
        loader.close()


def _serve(
    source: Source,
    loader: LoaderHandle,
    pid_file: PidFile | None,
    on_listening: Callable[[list[Listener]], None] | None,
) -> int:
    """Serve what a loader has loaded."""
    facts = loader.facts
    assert facts is not None
    settings = _set_up(source, facts, loader)
    source = _for_reload(source, settings)
    unwanted = source.supervision.close_strays(settings.bind)
    settings = bounded_by_files(settings, publishes=facts.publishes, opened=facts.opened)
    listeners = open_listeners(settings)
    try:
        generation = Generation(1, facts, settings, loader)
        office = _Office(source, source.program.resolved if source.program else None)
        office.pid_file = pid_file
        master = Master([generation], listeners, office)
        master.reopening.add(logs.reopen)
        if pid_file is not None:
            master.watch(pid_file)
        if settings.record:
            master.record(TraceWriter(settings.record))
        office.control = _control(master, settings.control)
        for watched in _watched(master, office.control, source, unwanted):
            master.watch(watched)
    except SetupError:
        for listener in listeners:
            listener.remove()
        raise
    if source.program is not None:
        before_load.warn_of_root(source.process)
    log.info("starting %s", about)
    for listener in listeners:
        for name in listener.names:
            announce(f"listening on {name}")
    if on_listening is not None:
        on_listening(listeners)
    master.open()
    return master.run()


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
    log_file = inherited.piece("log_file")
    logs.set_up(generations[-1].settings, LogFile.taken_over(*log_file) if log_file else None)
    if log_limit := inherited.piece("log"):
        logs.share_limit(*log_limit)
    program = inherited.program("started")
    is_back = bool(told.get("failure"))  # its names lead to another program by now
    resolved = inherited.program("resolved") if is_back else program.resolved
    office = _Office(evolve(source, program=program), resolved)
    set_title("master", generations[-1].facts.name)
    master = Master(generations, inherited.listeners(), office, inherited)
    master.reopening.add(logs.reopen)
    if trace := inherited.trace():
        master.record(trace)
    if pid_file := inherited.piece("pid_file"):
        office.pid_file = PidFile.taken_over(pid_file[0]["path"], *pid_file[1])
        master.watch(office.pid_file)
    if control := inherited.piece("control"):
        office.control = Control.taken_over(commands(master), *control)
    for watched in _watched(master, office.control, source, is_new=False):
        master.watch(watched)
    return master, office.control


class _Office:
    """What the master has done for it here."""

    def __init__(self, source: Source, resolved: Program | None) -> None:
        self.program = source.program
        self.resolved = resolved
        self.told = passed_on(source.supervision)
        self.control: Control | None = None
        self.pid_file: PidFile | None = None
        self._source = source

    @property
    def is_quiet(self) -> bool:
        """Whether ``handed_over`` would lose nothing."""
        return self.control is None or self.control.is_quiet

    def handed_over(self) -> dict[str, Part]:
        """Return what another program needs to take over the log, the control socket and the pid file."""
        control = self.control.handed_over() if self.control else None
        pid_file = self.pid_file
        pieces = {
            "log": logs.limit_handed_over(),
            "log_file": logs.file_handed_over(),
            "control": control,
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
            _fork_loader(box, master, source)

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


def _given_channel() -> tuple[LetterBox, int] | None:
    """Return the channel of this process and the master's pid, if it is to be a loader."""
    given = loader_facts(os.environ)
    os.environ.pop(VARIABLE, None)
    if given is None:
        return None
    os.set_inheritable(given["channel"], False)
    return LetterBox(socket.socket(fileno=given["channel"])), given["master"]


def tell_master(error: SetupError) -> bool:
    """Tell the master why this process loads nothing; return whether it was to be a loader."""
    given = _given_channel()
    if given is not None:
        with contextlib.suppress(OSError):
            given[0].send("FAILED", {"why": str(error), "usage": error.is_usage})
    return given is not None


def _fork_loader(box: LetterBox, master: int, source: Source) -> NoReturn:
    """Be a loader in a fork, which leaves the exit functions of its parent alone."""
    own_exit_functions()

    def load() -> tuple[App, Settings]:
        app, settings = source.load()
        for address in settings.bind:  # the sockets that were passed to the master come from there
            with contextlib.suppress(OSError):
                if (descriptor := parse_address(address).descriptor) >= 0:
                    os.close(descriptor)
        return app, settings

    _run_loader(box, master, evolve(source, load=load))


def _run_loader(box: LetterBox, master: int, source: Source) -> NoReturn:
    """Be a loader, to the end of this process."""
    status = 1
    set_title("loader", source.name)
    try:
        Loader(box, master, logs.share_limit).run(lambda: _load(source))
        status = 0
    except BaseException:
        log.exception("loader failed pid=%d", os.getpid())
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LONGEST_END)
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # what they raise is printed
            sys.stdout.flush()
        os._exit(status)


def _load(source: Source) -> Image:
    """Load an app and make it ready to serve.

    Raises:
        SetupError: It cannot be served; the text says why.
    """
    app, settings = source.load()
    refuse_patches()
    service = evolve(
        app.freeze(Limits(settings.max_line_bytes, settings.max_body_bytes)),
        log_lines=settings.log_requests == "line",
    )
    try:
        app.start()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code, reported in one line
        raise SetupError(f"on_start failed: {explained(error)}") from None
    warn_of_threads()
    return Image(app, service, settings)


def _set_up(source: Source, facts: AppFacts, loader: LoaderHandle) -> Settings:
    """Set up the master's process; return the settings that it works with."""
    settings = loader.settings
    assert settings is not None
    if source.identity is not None:  # the app's code may have said anything
        settings = loader.settings = evolve(settings, **source.fixed)
    logs.set_up(settings)
    if source.program is not None:
        set_title("master", facts.name)
    return settings


def _watched(
    master: Master,
    control: Control | None,
    source: Source,
    unwanted: Sequence[str] = (),
    *,
    is_new: bool = True,
) -> Iterator[Watched]:
    """Yield what the master's loop serves beside its workers; ``is_new``: this server has just begun."""
    if control is not None:
        yield control
    if source.supervision.notify_socket:
        yield notifier(master, source.supervision, unwanted, was_ready=not is_new)
    if master.settings.reload:
        yield Watching(
            master, source.files, lambda: before_load.become(source.identity, source.process)
        )
    yield logs.LogReporter()
    yield MemoryCheck(master)


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
