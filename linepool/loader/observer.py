"""The observer: runs the hooks of the server as a whole, which the master must not run.

Runs in a process of its own, forked from the loader if the app has such hooks. It runs one function at a
time, when the master says so, and serves no client. It ends when the master closes the channel, or has ended.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import time

from linepool import forked
from linepool.apps import Apps
from linepool.events import event_of
from linepool.ipc.letters import LetterBox
from linepool.kernel.standard import flush
from linepool.worker.ending import finish, own_exit_functions
from linepool.worker.interrupts import DUMP

log = logging.getLogger("linepool")


class Observer:
    """The observer.

    Args:
        apps: Have the hooks.
        box: Its end of the channel to the master.
        stack_file: A descriptor; where its stack is written before it is killed.
        handle: Its pidfd, or that of its keeper, for the master; taken over.
    """

    def __init__(self, apps: Apps, box: LetterBox, stack_file: int, handle: int) -> None:
        self._apps = apps
        self._box = box
        self._handle = handle
        own_exit_functions()
        faulthandler.unregister(DUMP)
        faulthandler.register(DUMP, file=stack_file, all_threads=True, chain=False)
        os.register_at_fork(after_in_child=_note_fork)

    def run(self, patience: float) -> None:
        """Serve the master to its end.

        Args:
            patience: Seconds for threads and exit functions at the end.
        """
        try:
            self._box.send("STARTED", {"pid": os.getpid()}, [self._handle])
        finally:
            os.close(self._handle)
        try:
            while letter := self._box.receive(wait=True):
                self._call(letter.facts)
                flush()  # it may be killed in the next one
                self._box.send("DONE", {})
        except (EOFError, BrokenPipeError, ConnectionResetError):
            finish(time.monotonic() + patience)

    def _call(self, facts: dict[str, object]) -> None:
        """Run one function of a hook."""
        name, number = str(facts["name"]), int(str(facts["number"]))
        try:
            event = event_of(name, facts["event"])  # type: ignore[arg-type]
            with forked.contained():
                self._apps.call_observing(name, number, event)
        except BaseException:  # also SystemExit: others are to run after it
            log.exception("hook failed hook=%s function=%r", name, facts["place"])


def _note_fork() -> None:
    """Note that this process is one that a hook has forked; it ends where the hook returns."""
    forked.depth += 1
    own_exit_functions()
