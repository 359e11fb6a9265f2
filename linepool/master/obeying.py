"""What signals say to the master. Runs in its loop, never in the handler of a signal."""

from __future__ import annotations

import contextlib
import logging
import signal
from pathlib import Path
from typing import Protocol as Interface

from linepool.master.reload import Reload
from linepool.master.reopening import Reopening
from linepool.master.upgrade import Upgrade
from linepool.settings import MAX_WORKERS, Settings, Workers

log = logging.getLogger("linepool")

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class Commanded(Interface):
    """The master, as far as signals are concerned; see there."""

    stopping: bool
    is_drained: bool
    had_terminal: bool
    reopening: Reopening
    reload: Reload
    upgrade: Upgrade

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    def scale(self, workers: Workers) -> None:
        """Set the bounds of the pool, and fill it."""

    def stop(self, graceful: bool = True) -> None:
        """Stop."""

    def empty(self) -> str:
        """Have all workers leave; return why that cannot be, or ""."""


def obey(master: Commanded, number: signal.Signals) -> None:
    """Do what a signal says."""
    workers = master.settings.workers
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        master.stop(graceful=number == signal.SIGTERM and not master.stopping)
    elif number == signal.SIGHUP:
        _hang_up(master)
    elif number == signal.SIGTTIN and workers.max < MAX_WORKERS:
        master.scale(Workers(workers.min + 1, workers.max + 1))
    elif number == signal.SIGTTOU and workers.min > 1 and not master.is_drained:
        master.scale(Workers(workers.min - 1, workers.max - 1))
    elif number == signal.SIGUSR1:
        master.reopening.run()
    elif number == signal.SIGUSR2:
        master.upgrade.begin()
    elif number == signal.SIGWINCH:
        if in_foreground():
            log.debug("signal of the terminal ignored signal=SIGWINCH")
        elif why := master.empty():
            log.warning("not drained: %s", why)


def _hang_up(master: Commanded) -> None:
    """Reload, or stop if the terminal was closed in which the server was started."""
    if master.had_terminal and not has_terminal():
        master.stop()
    else:
        master.reload.begin()


def in_foreground() -> bool:
    """Whether this process is in the foreground process group of its terminal.

    The kernel sends WINCH to that group when the terminal is resized (signal(7); proc(5): pgrp, tpgid).
    """
    facts = _facts()
    return bool(facts) and facts[2] == facts[5]


def has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still open.

    When a terminal is closed, what runs in it loses it, and is sent HUP (proc(5): tty_nr).
    """
    facts = _facts()
    return bool(facts) and facts[4] != "0"


def _facts() -> list[str]:
    """Return what the kernel tells of this process, from its state on; empty: nothing."""
    with contextlib.suppress(OSError):
        return Path("/proc/self/stat").read_text("ascii", "replace").rpartition(") ")[2].split()
    return []
