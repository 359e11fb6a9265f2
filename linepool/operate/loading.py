"""Being a loader: what a server loads, and how, in the process that does it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import evolve, field, frozen

from linepool import core
from linepool.address import parse_address
from linepool.apps import Apps
from linepool.errors import SetupError
from linepool.forked import contained_in_load
from linepool.ipc.letters import LetterBox
from linepool.kernel.privileges import Identity
from linepool.kernel.program import Program
from linepool.kernel.standard import with_high_number
from linepool.kernel.title import set_title
from linepool.loader.image import Image
from linepool.loader.loader import ChannelLostError, Loader
from linepool.master.loader_handle import CLOSED_CHANNEL, VARIABLE, loader_facts
from linepool.operate import logs
from linepool.operate.access_output import open_output
from linepool.operate.before_fork import refuse_patches, warn_of_threads
from linepool.operate.certificates import Certificates
from linepool.operate.supervision import UNSUPERVISED, Supervision
from linepool.operate.target import explained
from linepool.settings import IN_FOREGROUND, ProcessSettings, Settings
from linepool.worker.ending import own_exit_functions

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("linepool")

_LONGEST_END = 5  # seconds for the exit functions of a loader


@frozen
class Source:
    """What is to be served.

    Attributes:
        name: Of the target or script, for messages.
        load: Returns the apps and all settings, with the log set up. Called in the loader.
        process: What the processes are. All of it is in effect already, but for the user.
        identity: The user that loads the app and serves; None: that of this process.
        fixed: Settings that root does not take from the app, such as those that name files.
        supervision: How this process is supervised.
        program: What loads it anew: the one that this process was started with. None: a fork does.
        files: Where its settings may be.
        in_foreground: It is loaded and served in this process.
        certificates: Those that were read while this process could read their files.
    """

    name: str
    load: Callable[[], tuple[Apps, Settings]]
    process: ProcessSettings
    identity: Identity | None = None
    fixed: Mapping[str, Any] = field(factory=dict)
    supervision: Supervision = UNSUPERVISED
    program: Program | None = None
    files: Sequence[str] = ()
    in_foreground: bool = False
    certificates: Certificates = field(factory=Certificates)


def given_channel() -> tuple[LetterBox, int] | None:
    """Return the channel of this process and the master's pid, if it is to be a loader."""
    given = loader_facts(os.environ)
    os.environ.pop(VARIABLE, None)
    if given is None:
        return None
    os.set_inheritable(given["channel"], False)
    return LetterBox(socket.socket(fileno=given["channel"])), given["master"]


def tell_master(error: SetupError) -> bool:
    """Tell the master why this process loads nothing; return whether it was to be a loader."""
    given = given_channel()
    if given is not None:
        with contextlib.suppress(OSError):
            given[0].send("FAILED", {"why": str(error), "usage": error.is_usage})
    return given is not None


def fork_loader(box: LetterBox, master: int, source: Source) -> NoReturn:
    """Be a loader in a fork, which leaves the exit functions of its parent alone."""
    own_exit_functions()

    def load_without_sockets() -> tuple[Apps, Settings]:
        apps, settings = source.load()
        for address in settings.bind:  # the sockets that were passed to the master come from there
            with contextlib.suppress(OSError):
                if (descriptor := parse_address(address).descriptor) >= 0:
                    os.close(descriptor)
        return apps, settings

    run_loader(box, master, evolve(source, load=load_without_sockets))


def run_loader(box: LetterBox, master: int, source: Source) -> NoReturn:
    """Be a loader, to the end of this process."""
    status = 1
    set_title("loader", source.name)
    box = LetterBox(socket.socket(fileno=with_high_number(box.socket.detach())))
    try:
        Loader(box, master, logs.share_limit).run(lambda: _load(source))
        status = 0
    except ChannelLostError:
        status = CLOSED_CHANNEL
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
    """Load the apps in a loader.

    Raises:
        SetupError: It cannot be served; the text says why.
    """
    try:
        image = load(source)
    except KeyboardInterrupt as error:  # of ^C, which ends the master too; or the app has raised it
        raise SetupError(f"cannot load {source.name}: {explained(error)}") from None
    if image.settings.workers == IN_FOREGROUND:
        raise SetupError(
            "workers = 0 is for the command that starts a server: give --workers 0, not in App(...)"
        )
    warn_of_threads()
    return image


def load(source: Source) -> Image:
    """Load the apps and make them ready to serve.

    Raises:
        SetupError: They cannot be served; the text says why.
    """
    apps, settings = source.load()
    refuse_patches()
    services = apps.freeze(settings)
    for service in services.values():
        core.prepare(type(service.protocol))
    try:
        with contained_in_load():
            apps.start()
    except KeyboardInterrupt:  # of ^C: the whole server ends
        raise
    except BaseException as error:  # noqa: BLE001 - the user's code, reported in one line
        raise SetupError(f"on_start failed: {explained(error)}") from None
    path = source.fixed.get("access_log", "off") if source.identity else settings.access_log
    contexts = _tls(source.certificates, settings)
    return Image(apps, services, settings, open_output(path), contexts)


def _tls(certificates: Certificates, settings: Settings) -> dict[str, ssl.SSLContext]:
    """Return the TLS of the server, under "", and of each listener with a table, by its key.

    Raises:
        SetupError: A file cannot be used.
    """
    keys = settings.keys if settings.listeners else []
    found = {key: certificates.of(settings.of_listener(key)) for key in ("", *keys)}
    for warning in dict.fromkeys(text for tls in found.values() if tls for text in tls.warnings()):
        log.warning("%s", warning)
    return {key: tls.context for key, tls in found.items() if tls}
