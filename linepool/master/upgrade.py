"""Upgrade in place: another version of linepool or of Python takes the place of the running master.

Runs in the master. First a dry run of the program that the same command line starts now; if that could take
over, the master waits until nothing is under way that it could not hand over, and becomes the program
(execve(2)). Its pid, its children and all connections stay. What happens then is in ``takeover``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import selectors
import time
from collections.abc import Callable
from typing import Any
from typing import Protocol as Interface

from linepool.kernel import features
from linepool.kernel.draining import Draining
from linepool.kernel.program import Program
from linepool.kernel.sealed_file import sealed_file
from linepool.kernel.way_back import VARIABLE
from linepool.master import takeover
from linepool.master.dry_run import DryRun
from linepool.master.incidents import UPGRADE_FAILED
from linepool.master.office import Office
from linepool.master.parts import Parts
from linepool.version import __version__

log = logging.getLogger("linepool")

_LONGEST_WAIT = 1.0  # seconds until nothing is under way
_LOOK_EVERY = 0.005  # seconds

Answer = Callable[[str], None]


class Server(takeover.Server, Interface):
    """What an upgrade uses of the master."""

    stopping: bool
    draining: Draining


class Upgrade:
    """The upgrades of one server, one at a time; what the master's loop watches.

    Args:
        server: The master.
        parts: Those of the master.
        office: Knows what this program was started as.

    Attributes:
        due_at: When to call ``turn``, on the monotonic clock.
        is_near: The master waits until nothing is under way, so nothing is to be begun.
    """

    def __init__(self, server: Server, parts: Parts, office: Office) -> None:
        self.due_at = math.inf
        self.is_near = False
        self._server = server
        self._parts = parts
        self._office = office
        self._answer: Answer | None = None
        self._dry_run: DryRun | None = None
        self._quiet_by = 0.0

    @property
    def is_running(self) -> bool:
        """Whether one is under way."""
        return self.is_near or self._dry_run is not None

    def begin(self, answer: Answer | None = None) -> None:
        """Begin an upgrade.

        Args:
            answer: Called with why there is none. If there is one, the program that takes over answers.
        """
        if self.is_running:
            why = "an upgrade is running; try again when it is done"
            log.warning("upgrade not begun: %s", why)
            if answer:
                answer(why)
            return
        self._answer = answer
        program = self._office.program
        if program is None:
            self._refuse("this server was not started by a command of its own")
        elif not self._server.was_ready:
            self._refuse("the server is starting; try again when it is ready")
        elif not features.PIDFD:
            self._refuse("this system has no pidfd; restart the server, or reload it")
        elif why := self._obstacle:
            self._refuse(why)
        else:
            self._try(program)

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register nothing yet."""

    def turn(self) -> None:
        """Do what is due, and what has become possible."""
        now = time.monotonic()
        if self.is_running and (why := self._obstacle):
            self._refuse(why)
        elif self._dry_run is not None and now >= self._dry_run.give_up_at:
            self._dry_run.give_up()
        elif self.is_near and not (waits_for := self._under_way()):
            self._execute()
        elif self.is_near and now >= self._quiet_by:
            self._refuse(f"{waits_for}; try again later")
        self.due_at = math.inf
        if self._dry_run is not None:
            self.due_at = self._dry_run.give_up_at
        elif self.is_near:
            self.due_at = now + _LOOK_EVERY

    def close(self) -> None:
        """End what is under way, in the master."""
        if self.is_running:
            self._refuse("the server has stopped")

    def abandon(self) -> None:
        """Close a new helper's copies."""
        if self._dry_run is not None:
            self._dry_run.abandon()

    @property
    def _obstacle(self) -> str:
        """What does not go together with an upgrade; "": nothing."""
        server = self._server
        if server.stopping:
            return "the server is stopping"
        if server.reload.is_running:
            return "a reload is running; try again when it is done"
        if not server.reload.is_possible:
            return "workers of earlier generations are still leaving; try again later"
        if not server.generation.loader.is_open:
            return "the loader has ended; reload first"
        return ""

    def _under_way(self) -> str:
        """What cannot be handed over now, but soon; "": nothing."""
        parts = self._parts
        if parts.pool.births:
            return "workers are being forked"
        if not parts.observing.is_quiet:
            return "the process of the server's hooks begins or ends"
        if parts.parker is not None and not parts.parker.is_quiet:
            return "the parker has not taken all that it was sent"
        if not parts.watchdog.is_quiet:
            return "the connections of a killed worker are still being ended"
        if self._server.draining.due_at < math.inf:
            return "a listener that was removed is still being closed"
        if not self._office.is_quiet:
            return "a client of the control socket still waits for a reply"
        return ""

    def _try(self, program: Program) -> None:
        """Start the dry run."""
        log.info("upgrading: dry run of %s", program.arguments[0])
        try:
            state = sealed_file(json.dumps(self._state()).encode())
            try:
                told = {"master": os.getpid(), **self._office.told}
                selector = self._parts.selector
                self._dry_run = DryRun(program, told, state, selector, self._tried)
            finally:
                os.close(state)
        except OSError as error:
            self._refuse(f"cannot start it: {error.strerror or error}")
        else:
            self.due_at = self._dry_run.give_up_at

    def _tried(self, version: str, why: str) -> None:
        """Note how the dry run has ended."""
        self._dry_run = None
        if why:
            self._refuse(why)
            return
        log.info("upgrading: linepool %s can take over", version)
        self.is_near = True
        self.due_at = 0.0
        self._quiet_by = time.monotonic() + _LONGEST_WAIT

    def _refuse(self, why: str) -> None:
        """End an upgrade, because it is not possible."""
        if self._dry_run is not None:
            self._dry_run.close()
        self._dry_run = None
        self.is_near = False
        self.due_at = math.inf
        log.error("upgrade failed, linepool %s goes on: %s", __version__, why)
        self._parts.incidents.note(UPGRADE_FAILED, why=why)
        answer, self._answer = self._answer, None
        if answer:
            answer(why)

    def _state(self) -> dict[str, Any]:
        programs = {}
        if self._office.program is not None and self._office.resolved is not None:
            programs = {"started": self._office.program, "resolved": self._office.resolved}
        others = self._office.handed_over()
        return takeover.state_of(self._server, self._parts, others, programs)

    def _execute(self) -> None:
        """Become the program. Pre-condition: this is the main thread; another one would end the workers."""
        program = self._office.program
        assert program is not None
        log.info("upgrading: becoming the new program")
        try:
            state = self._state()
            file = sealed_file(json.dumps(state).encode())
            try:
                told = {"master": os.getpid(), "state": file, **self._office.told}
                kept = [*takeover.descriptors_in(state), file]
                variables = {VARIABLE: json.dumps(told)}
                program.replace(variables, kept, self._parts.send_signals_again)
            finally:
                os.close(file)
        except OSError as error:
            self._refuse(f"cannot start {error.filename or program.arguments[0]}: {error.strerror}")
