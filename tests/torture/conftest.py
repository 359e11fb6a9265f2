"""Tests under load that take minutes, for ``./dev torture``.

Their files are not named ``test_*.py``, so pytest collects them only if they are named.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that makes a run shorter or longer."""
    parser.addoption("--seconds", type=float, default=300.0, help="churn in each scheme [300]")


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """Give how long workers are killed in each scheme."""
    return float(request.config.getoption("--seconds"))
