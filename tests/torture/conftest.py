"""Tests under load that take minutes, for ``./dev torture``.

Their files are not named ``test_*.py``, so pytest collects them only if they are named.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that make a run shorter or longer."""
    parser.addoption("--seconds", type=float, default=300.0, help="churn in each scheme [300]")
    parser.addoption("--requests", type=int, default=100_000, help="while resizing [100000]")
    parser.addoption("--reloads", type=int, default=20, help="reloads in each scheme [20]")
    parser.addoption("--calls", type=int, default=100_000, help="that are cancelled [100000]")
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
