"""The loader: loads an app, and forks workers and the observer from it as the master orders.

Runs in a process of its own, one for each generation: the app's code is loaded here, and never in the
master. The first loader is a fork of the master before it has loaded anything; later ones are started anew.
It serves no client. It ends when the master closes the channel, or has ended.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from linepool.errors import ServerError, SetupError
from linepool.ipc.board import Board
from linepool.ipc.figures import Figures
from linepool.ipc.letters import Letter, LetterBox, unpacked
from linepool.kernel.listeners import Listener
from linepool.kernel.shortage import what_is_short
from linepool.kernel.signals import adopt_orphans, signal_at_parents_end
from linepool.kernel.sockets import identity_of
from linepool.kernel.title import set_title
from linepool.loader import unfinished
from linepool.loader.births import Births, NotBorn, Shared
from linepool.loader.image import Image, Load, own_files
from linepool.protocols.base import Request
from linepool.pubsub.bus import Bus
from linepool.service import Service
from linepool.settings import from_texts
from linepool.worker.interrupts import DUMP

log = logging.getLogger("linepool")

_STANDARD_ERROR = 2
_OF_THE_MASTER = (
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class ChannelLostError(Exception):
    """The app's code has closed the channel to the master, or has put another file there."""


class Loader:
    """The loader.

    Args:
        box: Its end of the channel to the master.
        master: The master's pid.
        share_log: Called with what the master hands over for the limits of the log.
    """

    def __init__(
        self, box: LetterBox, master: int, share_log: Callable[[dict[str, Any], list[int]], None]
    ) -> None:
        self._box = box
        self._master = master
        self._share_log = share_log

    def run(self, load: Load) -> None:
        """Load the app, and serve the master to its end.

        Raises:
            ChannelLostError: The master cannot be told what was loaded.
        """
        signal_at_parents_end(signal.SIGKILL)
        if os.getppid() != self._master:
            return
        channel = identity_of(self._box.fileno())
        image, failed = self._load(load)
        if identity_of(self._box.fileno()) != channel:
            raise ChannelLostError
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            if image is not None:
                self._box.send("LOADED", image.as_json())
                self._serve(image)
            elif failed:
                self._box.send("FAILED", failed)

    def _load(self, load: Load) -> tuple[Image | None, dict[str, Any]]:
        """Return what was loaded, or None and what the master is to know of that; {}: it knows."""
        # So that the log can show where a load hangs.
        faulthandler.register(DUMP, file=_STANDARD_ERROR, all_threads=True, chain=False)
        try:
            return load(), {}
        except SetupError as error:
            return None, {"why": str(error), "usage": error.is_usage, "files": own_files(error)}
        except KeyboardInterrupt:
            return None, {}  # the master has it too
        except Exception as error:
            if not (short := what_is_short(error)):
                raise
            return None, {"why": f"cannot load the app: {short}", "usage": False}
        finally:
            faulthandler.unregister(DUMP)

    def _serve(self, image: Image) -> None:
        letter = self._next()
        while letter.kind != "START":  # which is the first, but for questions
            self._obey(letter, image, None)
            letter = self._next()
        self._become_background()
        shared = self._started(letter, image)
        births = Births(self._box, self._master, shared)
        # What the app has loaded stays out of the workers' collections, and so stays shared.
        gc.collect()
        gc.freeze()
        try:
            while True:
                self._obey(self._next(), image, births)
        finally:
            for listener in shared.listeners:
                listener.close()

    def _next(self) -> Letter:
        letter = self._box.receive(wait=True)
        assert letter is not None
        return letter

    def _become_background(self) -> None:
        """Leave the terminal's signals, and those to a whole server, to the master."""
        with contextlib.suppress(PermissionError):  # it leads a group already
            os.setpgid(0, 0)
        adopt_orphans(
            adopt=False
        )  # the app may have had it adopt them, but workers are the master's
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, waitpid() fails
        for number in _OF_THE_MASTER:
            # Not SIG_IGN: the programs that handlers start would inherit that.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _on_signal)

    def _started(self, letter: Letter, image: Image) -> Shared:
        """Return what all workers of this generation share, from the master's first letter."""
        facts = letter.facts
        if letter.is_cut:
            raise OSError(errno.EMFILE, "no descriptors for what workers share")
        set_title("loader", f"{image.apps.name} g{facts['generation']}")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, facts["files"]), hard))
        parts = unpacked(facts["parts"], letter.descriptors)
        if "log" in parts:
            self._share_log(*parts["log"])
        return Shared(
            image=image,
            generation=facts["generation"],
            settings=from_texts(facts["settings"]),
            board=Board.taken_over(*parts["board"]),
            figures=Figures.taken_over(*parts["figures"]),
            listeners=[Listener.taken_over(*parts[name]) for name in facts["listeners"]],
            bus=Bus.taken_over(*parts["bus"]) if "bus" in parts else None,
        )

    def _obey(self, letter: Letter, image: Image, births: Births | None) -> None:
        match letter.kind:
            case "SPAWN" if births is not None:
                self._spawn(births, letter)
            case "OBSERVE" if births is not None:
                _observe(births, letter)
            case "ENCODE":
                service = births.service_at(letter.facts["local"]) if births else image.first
                reply = _encoded(service, letter.facts)
                self._box.send(
                    "ENCODED", {"number": letter.facts["number"], "reply": reply.decode("latin-1")}
                )
            case "UNFINISHED":
                unfinished.write(image, letter.facts)
            case _:
                letter.close()

    def _spawn(self, births: Births, letter: Letter) -> None:
        slot = letter.facts["slot"]
        try:
            pid, pidfd = births.spawn(letter)
        except NotBorn as error:
            self._box.send("NOT_SPAWNED", {"slot": slot, "why": str(error)})
            return
        try:
            self._box.send("SPAWNED", {"slot": slot, "pid": pid}, [pidfd])
        finally:
            os.close(pidfd)


def _observe(births: Births, letter: Letter) -> None:
    """Have the observer forked; it tells the master that it is there, or its channel is closed."""
    try:
        _, pidfd = births.spawn(letter)
    except NotBorn as error:
        log.error("cannot fork the observer: %s", error)  # noqa: TRY400
    else:
        os.close(pidfd)


def _encoded(service: Service, facts: dict[str, Any]) -> bytes:
    """Return the error reply for the client of a killed worker; b"": the protocol has none."""
    line = facts["line"].encode("latin-1")
    try:
        protocol = service.open_protocol()
        verb = service.protocol.command_in(line)
        request = Request(verb, [], eol=facts["eol"].encode("latin-1"), line=line)
        return protocol.encode_error(ServerError(facts["why"]), request)
    except Exception:  # the protocol may be the user's
        log.exception("no error line for the client of a killed worker")
        return b""


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""
