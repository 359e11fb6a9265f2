"""The reply to an order to upgrade: another program gives it than the one that was asked."""

from __future__ import annotations

import json
from concurrent.futures import Future

from attrs import asdict

from linepool.errors import ServerError
from linepool.master.outcome import Outcome
from linepool.version import __version__


class UpgradeReply(Future[object]):
    """A reply that comes later.

    Attributes:
        form: ``json`` or ``text``.

    Args:
        form: What it is to be.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def refuse(self, why: str) -> None:
        """Say that there is no upgrade, and why."""
        self._finish(Outcome(0, 0, 0.0, why))

    def finish(self, outcome: Outcome) -> None:
        """Say that this program has taken over, and how the reload after that has ended."""
        self._finish(outcome)

    def _finish(self, outcome: Outcome) -> None:
        if self.done():
            return
        if self.form == "json":
            self.set_result(json.dumps({"version": __version__, **asdict(outcome)}))
        elif outcome.failure:
            self.set_exception(ServerError(outcome.failure.partition("\n")[0]))
        else:
            self.set_result(f"linepool {__version__}: {outcome}")
