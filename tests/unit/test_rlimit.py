"""How the limit of open files is shared out between workers and connections."""

from __future__ import annotations

import pytest

from linepool import SetupError
from linepool.kernel.rlimit import bus_regions, descriptors_needed, share_out
from linepool.settings import Settings, Workers

LIMITS = [40, 41, 64, 100, 256, 512, 1024, 4096, 20_000, 1_000_000]


def pool(least: int, most: int, **settings: object) -> Settings:
    return Settings(workers=Workers(least, most), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("publishes", [False, True])
@pytest.mark.parametrize("scheme", ["shared", "dispatch", "accept"])
@pytest.mark.parametrize("settings", [pool(1, 1), pool(1, 8), pool(4, 256), pool(1000, 1000)])
@pytest.mark.parametrize("limit", LIMITS)
def test_what_is_allowed_needs_no_more_than_the_limit(limit, settings, scheme, publishes):
    wanted = Settings(workers=settings.workers, scheme=scheme)
    limit += 20 if publishes else 0  # the bus alone needs them

    allowed = share_out(wanted, limit, publishes=publishes)

    assert descriptors_needed(allowed, publishes=publishes) <= limit
    assert 1 <= allowed.workers.min <= allowed.workers.max <= wanted.workers.max
    assert 1 <= allowed.hot_connections <= wanted.hot_connections
    assert 1 <= allowed.max_connections <= wanted.max_connections


@pytest.mark.parametrize("publishes", [False, True])
@pytest.mark.parametrize("settings", [pool(1, 8), pool(4, 256), pool(2, 2, max_connections=50)])
def test_with_what_is_needed_nothing_is_lowered(settings, publishes):
    enough = descriptors_needed(settings, publishes=publishes) + settings.hot_connections

    assert share_out(settings, enough, publishes=publishes) == settings


def test_of_few_descriptors_most_are_for_clients():
    allowed = share_out(pool(2, 8), 512, publishes=False)

    assert allowed.workers == Workers(2, 8)
    assert allowed.max_connections > 450
    assert allowed.hot_connections == 64


def test_a_worker_leaves_half_of_a_low_limit_to_the_app():
    assert 10 <= share_out(pool(1, 1), 64, publishes=False).hot_connections <= 16


@pytest.mark.parametrize("opened", [7, 100, 400])
def test_what_is_open_already_counts(opened):
    allowed = share_out(pool(2, 8), 512, publishes=False, opened=opened)

    assert descriptors_needed(allowed, publishes=False, opened=opened) <= 512
    assert allowed.max_connections > 420 - opened


@pytest.mark.parametrize("limit", [0, 3, 20, 36])
def test_a_limit_that_leaves_nothing_is_refused_with_what_would_be_right(limit):
    with pytest.raises(
        SetupError, match=rf"the limit of open files is {limit}, .* raise it to 10\d\d\d "
    ):
        share_out(pool(1, 4), limit, publishes=False)


def test_the_bus_has_a_region_for_each_worker_and_its_replacement():
    assert bus_regions(4) >= 8
    assert bus_regions(1000) == 1000
