"""Starting a server: from an app and its settings to a running master."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

from attrs import evolve

from linepool.app import App
from linepool.core import about
from linepool.errors import SetupError
from linepool.kernel.listeners import Listener, open_listeners
from linepool.kernel.rlimit import bounded_by_files
from linepool.kernel.standard import fill_standard_descriptors
from linepool.master.announcing import announce
from linepool.master.generation import Generation
from linepool.master.master import Master
from linepool.master.watched import Watched
from linepool.operate import logs
from linepool.operate.before_fork import refuse_patches, warn_of_threads
from linepool.operate.commands import commands
from linepool.operate.control import Control
from linepool.operate.memory_check import MemoryCheck
from linepool.operate.notify import notifier
from linepool.operate.places import own_path
from linepool.operate.supervision import UNSUPERVISED, Supervision
from linepool.operate.target import explained
from linepool.protocols.base import Limits
from linepool.settings import Settings

log = logging.getLogger("linepool")


def serve(
    app: App,
    settings: Settings,
    on_listening: Callable[[list[Listener]], None] | None = None,
    supervision: Supervision = UNSUPERVISED,
) -> int:
    """Serve an app until it is stopped; return the exit status: 0, or 1 if it never came up.

    Args:
        app: What to serve.
        settings: All of them.
        on_listening: Called with the listeners once they are open, before the first worker.
        supervision: How this process is supervised.

    Raises:
        SetupError: It cannot start; the text says why.
    """
    refuse_patches()
    if threading.current_thread() is not threading.main_thread():
        raise SetupError(
            "a server runs in the main thread only, where Python handles signals; from another thread,"
            " start it as a process of its own"
        )
    service = evolve(
        app.freeze(Limits(settings.max_line_bytes, settings.max_body_bytes)),
        log_lines=settings.log_requests == "line",
    )
    try:
        app.start()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code, reported in one line
        raise SetupError(f"on_start failed: {explained(error)}") from None
    warn_of_threads()
    fill_standard_descriptors()
    unwanted = supervision.close_strays(settings.bind)
    settings = bounded_by_files(settings, publishes=service.protocol.publishes)
    listeners = open_listeners(settings)
    master = Master(Generation(1, app, service, settings), listeners)
    master.reopening.add(logs.reopen)
    try:
        if settings.record:
            master.record(settings.record)
        for watched in _watched(master, supervision, unwanted):
            master.watch(watched)
    except SetupError:
        for listener in listeners:
            listener.remove()
        raise
    log.info("starting %s", about)
    for listener in listeners:
        for name in listener.names:
            announce(f"listening on {name}")
    if on_listening is not None:
        on_listening(listeners)
    return master.run()


def _watched(
    master: Master, supervision: Supervision, unwanted: Sequence[str]
) -> Iterator[Watched]:
    """Yield what the master's loop serves beside its workers."""
    if control := _control(master, master.settings.control):
        yield control
    if supervision.notify_socket:
        yield notifier(master, supervision, unwanted)
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
