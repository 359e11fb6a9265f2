"""For all tests: examples that are the same in every run, and servers to test."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.process.running import Gate, Running

hypothesis.settings.register_profile(
    "linepool", derandomize=True, database=None, deadline=None, max_examples=200
)
hypothesis.settings.load_profile("linepool")

# Else what the tests start ignores ^C if they run in the background of a shell (POSIX, 2.12).
signal.signal(signal.SIGINT, signal.default_int_handler)

Launch = Callable[..., Running]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Give a gate at which the handlers of ``tests/handlers`` wait until the test opens it."""
    with contextlib.closing(Gate(tmp_path / "gate")) as gate:
        yield gate


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked with several schemes in each of them."""
    marker = metafunc.definition.get_closest_marker("scheme")
    if marker is not None and "scheme" in metafunc.fixturenames:
        metafunc.parametrize("scheme", marker.args, indirect=True)


@pytest.fixture
def scheme(request: pytest.FixtureRequest) -> str:
    """Give the scheme of the servers that are launched; "": the default."""
    return str(getattr(request, "param", ""))


@pytest.fixture
def launch(tmp_path: Path, scheme: str, request: pytest.FixtureRequest) -> Iterator[Launch]:
    """Start servers with the options of ``Running``; all that they have left is ended."""
    with contextlib.ExitStack() as stack:

        def start(target: str = "workshop.py", *options: str, **more: Any) -> Running:
            if "gate" in request.fixturenames:
                path = request.getfixturevalue("gate").path
                more["environment"] = {"GATE": str(path), **more.get("environment", {})}
            running = Running(tmp_path, target, *options, **{"scheme": scheme, **more})
            stack.callback(running.end)
            return running

        yield start
