"""The compiled core beside pure Python, for as long as wanted: ./dev fuzz core SECONDS."""

from __future__ import annotations

import secrets
import time
from functools import partial

from tests.unit.core_cases import VARIANTS, case, make_app
from tests.unit.core_twins import twins_of

_AT_ONCE = 1000  # cases of one variant
_MOST_SHOWN = 20


def run(seconds: float) -> int:
    """Run cases until the time is up, and show those that differ; return how many there were."""
    seed, block, different = secrets.token_hex(4), 0, 0
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        variant = VARIANTS[block % len(VARIANTS)]
        with twins_of(partial(make_app, variant)) as twins:
            for number in range(block * _AT_ONCE, (block + 1) * _AT_ONCE):
                one = case(seed, number, variant)
                try:
                    twins.run(one.pieces, accepts=one.accepts, early=one.early)
                except AssertionError as error:
                    different += 1
                    if different <= _MOST_SHOWN:
                        print(f"case({seed!r}, {number}) of {variant}: {error}", flush=True)
        block += 1
    print(f"protocol  core\ncases     {block * _AT_ONCE}\ndifferent {different}")
    return different
