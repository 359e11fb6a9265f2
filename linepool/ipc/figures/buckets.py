"""The buckets of a histogram of durations: four to a doubling, from 1 us to 724 s.

Their bounds are the powers of 2^(1/4) seconds, as those of OpenTelemetry's exponential histograms at scale 2
and of Prometheus' native histograms of schema 2. A bucket is 19 % wide, so a quantile is right to 9 %.
"""

from __future__ import annotations

from collections.abc import Sequence

BUCKETS = 120
_FIRST_EXPONENT = -80  # of the first bound, in quarters
BOUNDS_NS = tuple(
    round(1e9 * 2 ** ((number + _FIRST_EXPONENT) / 4)) for number in range(BUCKETS - 1)
)
"""The upper bound of each bucket, which belongs to it; the last bucket has none."""
MIDDLES_NS = tuple(
    round(1e9 * 2 ** ((number + _FIRST_EXPONENT - 0.5) / 4)) for number in range(BUCKETS)
)
"""A duration in the middle of each bucket."""
DOUBLINGS = range(0, BUCKETS - 1, 4)
"""The numbers of the bounds that are whole powers of 2 seconds."""


def quantile_ns(counts: Sequence[int], share: float) -> int:
    """Return the duration that a share of all does not exceed, in ns; 0: there are none.

    Args:
        counts: Of each bucket.
        share: From 0 to 1.
    """
    total = sum(counts)
    rank, seen = share * total, 0
    for number, count in enumerate(counts):
        seen += count
        if count and seen >= rank:
            if number >= len(BOUNDS_NS):
                return BOUNDS_NS[-1]
            low = BOUNDS_NS[number - 1] if number else 0
            within = (rank - (seen - count)) / count
            return round(low + (BOUNDS_NS[number] - low) * within)
    return 0
