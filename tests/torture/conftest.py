"""Tests under load that take minutes, for ``./dev torture``.

Their files are not named ``test_*.py``, so pytest collects them only if they are named.
"""

from __future__ import annotations

import secrets

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that make a run shorter or longer."""
    parser.addoption("--seconds", type=float, default=300.0, help="churn in each scheme [300]")
    parser.addoption("--requests", type=int, default=100_000, help="while resizing [100000]")
    parser.addoption("--reloads", type=int, default=20, help="reloads in each scheme [20]")
    parser.addoption("--calls", type=int, default=100_000, help="that are cancelled [100000]")
    parser.addoption("--seed", type=int, help="of the experiments; printed by each [chosen anew]")
    parser.addoption("--factor", type=int, default=1, help="how much longer experiments are [1]")
    parser.addoption("--write", action="store_true", help="figures into docs/reliability.md")
    parser.addoption("--schedules", type=int, default=1_000_000, help="simulated [1000000]")
    parser.addoption("--items", type=int, default=1_000_000, help="in queues [1000000]")


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """Give how long workers are killed in each scheme."""
    return float(request.config.getoption("--seconds"))


@pytest.fixture
def requests(request: pytest.FixtureRequest) -> int:
    """Give how many requests are sent in each scheme while the pool is resized."""
    return int(request.config.getoption("--requests"))


@pytest.fixture
def reloads(request: pytest.FixtureRequest) -> int:
    """Give how often the code is reloaded in each scheme."""
    return int(request.config.getoption("--reloads"))


@pytest.fixture
def calls(request: pytest.FixtureRequest) -> int:
    """Give how many calls of a client are cancelled."""
    return int(request.config.getoption("--calls"))


@pytest.fixture
def items(request: pytest.FixtureRequest) -> int:
    """Give how many items go through queues."""
    return int(request.config.getoption("--items"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Give the seed of an experiment."""
    chosen = request.config.getoption("--seed")
    return secrets.randbelow(10**6) if chosen is None else int(chosen)


@pytest.fixture
def factor(request: pytest.FixtureRequest) -> int:
    """Give how much longer the experiments are."""
    return int(request.config.getoption("--factor"))


@pytest.fixture
def write(request: pytest.FixtureRequest) -> bool:
    """Give whether the figures are to be written into the page."""
    return bool(request.config.getoption("--write"))
