"""A program that takes the place of a running master under the same pid, or tries whether it could.

Runs in that program, from its start to the master's loop. If anything fails on the way, it becomes the
program that was there before: the same command, with its names as they were resolved when it was started.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from linepool.core import about
from linepool.errors import SetupError
from linepool.kernel.standard import fill_standard_descriptors
from linepool.kernel.way_back import VARIABLE
from linepool.master.announcing import announce
from linepool.master.dry_run import CAN
from linepool.master.incidents import UPGRADE_FAILED
from linepool.master.master import Master
from linepool.master.outcome import Outcome
from linepool.master.takeover import Inherited, check, read
from linepool.operate import log_limit
from linepool.operate.control import Control
from linepool.version import __version__

log = logging.getLogger("linepool")


def dry_run(told: Mapping[str, Any]) -> int:
    """Say whether this program could take over; return the exit status.

    Raises:
        SetupError: It could not.
    """
    try:
        state = read(told["state"])
        check(state)
        limit = state["pieces"].get("log")
        if limit and limit[0]["layout"] != log_limit.LAYOUT:
            raise SetupError(
                "the counts of the log are laid out in another way: restart the server"
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SetupError(
            f"linepool {__version__} cannot read the state of this server ({error!r}): restart it"
        ) from None
    print(f"{CAN}{about.removeprefix('linepool ')}", flush=True)
    return 0


def take_over(
    told: Mapping[str, Any], build: Callable[[Inherited], tuple[Master, Control | None]]
) -> int:
    """Take over a server, and run it until it is stopped; return the exit status.

    Args:
        told: What the program is told.
        build: Makes the master and the control socket of what was inherited.
    """
    inherited: Inherited | None = None
    try:
        fill_standard_descriptors()
        inherited = Inherited(told["state"])
        check(inherited.state)
        inherited.protect()
        master, control = build(inherited)
        master.open(inherited)
        inherited.settle()
    except BaseException as error:
        if inherited is None:
            raise  # nothing is known of the other program
        why = f"linepool {__version__} could not take over: {type(error).__name__}: {error}"
        log.exception("%s", why)
        _fall_back(inherited, told, why.partition("\n")[0])
        raise SetupError(
            "the program that was there before cannot go on; the server ends"
        ) from None
    state = inherited.state
    failure = told.get("failure", "")
    blind_s = time.monotonic() - state["at"]
    if failure:
        announce(f"linepool {__version__} goes on: {failure}", "not upgraded", why=failure)
        master.incidents.note(UPGRADE_FAILED, why=failure)
    else:
        announce(f"upgraded to {about}", "upgraded", version=__version__)
        log.info("upgraded from=%s to=%s blind_s=%.3f", state["version"], __version__, blind_s)
    replies = control.upgrades if control else []

    def answer(outcome: Outcome) -> None:
        for reply in replies:
            reply.finish(outcome)

    # Before anything is forked, which would inherit the mask; a signal is noted for the loop.
    signal.pthread_sigmask(signal.SIG_SETMASK, state["signal_mask"])
    if failure:
        for reply in replies:
            reply.refuse(failure)
    else:
        master.reload.begin(answer)
    return master.run()


def _fall_back(inherited: Inherited, told: Mapping[str, Any], why: str) -> None:
    """Become the program that was there before, and say why; return if that is not possible."""
    if told.get("failure"):  # this is it
        return
    program = inherited.program("resolved")
    file = inherited.restore()
    variable = {**told, "state": file, "master": os.getpid(), "failure": why}
    try:
        program.replace({VARIABLE: json.dumps(variable)}, [])
    except OSError as problem:
        log.error("cannot start %s: %s", problem.filename, problem.strerror)  # noqa: TRY400
