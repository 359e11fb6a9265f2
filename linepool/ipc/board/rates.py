"""How often the clients of one address or user have asked lately: buckets on the board for all workers.

Each bucket is one word: 16 bits that tell clients apart, and the microsecond of the monotonic clock at
which it is full again (the "generic cell rate algorithm" of ITU-T I.371). A word whose moment is past says
nothing, so it may be overwritten. There are no locks: if two workers write a bucket at the same time, one
request less is counted, so an address may pass its limit under an attack, by the number of processors.
``core/turn.pyx`` has the same in C.
"""

from __future__ import annotations

import time

from linepool.ipc.board.page import Board
from linepool.ipc.board.words import RATE_BUCKETS

IN_SET = 4  # buckets in which an address may be
SETS = RATE_BUCKETS // IN_SET
TAG_SHIFT = 48
MOMENT = (1 << TAG_SHIFT) - 1
LONGEST_US = (
    3_600_000_000  # that a bucket may take to be full; what says more was overwritten with nonsense
)


class Rates:
    """The buckets.

    Args:
        board: Where they are.
        rate: Requests per second of one client.
        burst: Requests that it may send at once.

    Attributes:
        words: The buckets of all limits.
        interval_us: Between two requests at the rate.
        ahead_us: How far in the future the moment of a bucket may be for another request.
        salt: Gives each limit buckets of its own: two listeners that have the same limit share them.
    """

    def __init__(self, board: Board, rate: float, burst: int) -> None:
        self.words = board.rates
        self.interval_us = max(1, round(1e6 / rate))
        self.ahead_us = (burst - 1) * self.interval_us
        self.salt = hash((self.interval_us, burst)) & 0xFFFFFFFF

    def admits(self, client: int) -> bool:
        """Count a request; return whether it is within the limit.

        Args:
            client: The client's number, see ``origin_of`` and ``user_number``.
        """
        now_us = time.monotonic_ns() // 1000
        client ^= self.salt
        first = client % SETS * IN_SET
        tag = client >> 16 | 1  # not 0, so a word that was never written is of no client
        words = self.words
        place, moment = first, MOMENT
        for at in range(first, first + IN_SET):
            word = words[at]
            full_us = word & MOMENT
            if full_us - now_us > LONGEST_US:
                full_us = 0
            if word >> TAG_SHIFT == tag:
                place, moment = at, full_us
                break
            if full_us < moment:  # of those of other clients, the one that is full first
                place, moment = at, full_us
        else:
            moment = 0
        moment = max(moment, now_us)
        if moment - now_us > self.ahead_us:
            return False
        words[place] = tag << TAG_SHIFT | moment + self.interval_us
        return True
