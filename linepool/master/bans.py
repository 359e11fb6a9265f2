"""The networks that an operator has banned for a while. Runs in the master.

They are on the board, so that all processes see them at once, and an upgrade keeps them.
"""

from __future__ import annotations

import logging
import math
import selectors
import time

from linepool.errors import ClientError
from linepool.ipc.board import MAX_BANS, MasterView

log = logging.getLogger("linepool")

MOST_SECONDS = 1e9
"""For which a network may be banned, but for a ban without a limit."""


class BanList:
    """The banned networks, as something that the master watches: it forgets those whose time is over."""

    def __init__(self, board: MasterView) -> None:
        self._board = board
        self.due_at = min(board.bans.values(), default=math.inf)

    def add(self, network: str, seconds: float) -> None:
        """Ban a network, or change until when it is banned.

        Args:
            network: As ``settings.networks.parsed_networks`` returns it.
            seconds: For how long; infinite: until the ban is lifted, or the server ends.

        Raises:
            ClientError: There are too many bans.
        """
        bans = self._board.bans
        if network not in bans and len(bans) >= MAX_BANS:
            raise ClientError(
                f"there are {MAX_BANS} bans already; lift some, or ban a larger network"
            )
        bans[network] = time.monotonic() + seconds
        self._publish(bans)
        limit = "" if seconds == math.inf else f" for_s={seconds:g}"
        log.info("banned network=%s%s", network, limit)

    def lift(self, network: str) -> None:
        """Lift the ban of a network.

        Raises:
            ClientError: It is not banned.
        """
        bans = self._board.bans
        if network not in bans:
            raise ClientError(f"{network} is not banned; banned: {', '.join(bans) or 'nothing'}")
        del bans[network]
        self._publish(bans)
        log.info("ban lifted network=%s", network)

    def _publish(self, bans: dict[str, float]) -> None:
        self._board.ban(bans)
        self.due_at = min(bans.values(), default=math.inf)

    def turn(self) -> None:
        """Forget the bans whose time is over."""
        now = time.monotonic()
        if now < self.due_at:
            return
        bans = self._board.bans
        for network in [network for network, until in bans.items() if until <= now]:
            del bans[network]
            log.info("ban over network=%s", network)
        self._publish(bans)

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register nothing."""

    def close(self) -> None:
        """Do nothing: the board ends with the server."""

    def abandon(self) -> None:
        """Do nothing."""
