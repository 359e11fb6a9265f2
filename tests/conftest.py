"""For all tests: the same hypothesis examples in every run, and fixtures that start servers."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import linepool
from linepool import app, core
from linepool.kernel import features
from tests.servers import ENVIRONMENT, Fifo, Gate, ServerProcess

hypothesis.settings.register_profile(
    "linepool", derandomize=True, database=None, deadline=None, max_examples=40
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("linepool"), derandomize=False, max_examples=500
)
hypothesis.settings.load_profile("linepool")

# Otherwise what the tests start ignores ^C if they run in the background of a shell (POSIX, 2.12).
signal.signal(signal.SIGINT, signal.default_int_handler)

Launch = Callable[..., ServerProcess]
OTHER_USER = 54321
"""The id of a user without processes."""


@pytest.fixture(autouse=True)
def default_app(monkeypatch: pytest.MonkeyPatch) -> app.App:
    """Give each test a default app of its own, on which ``linepool.handler`` and its siblings act."""
    new = app.App()
    for name, value in vars(app).items():
        if getattr(value, "__self__", None) is app.default:
            monkeypatch.setattr(app, name, getattr(new, name))
            monkeypatch.setattr(linepool, name, getattr(new, name))
    monkeypatch.setattr(app, "default", new)
    return new


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Give a gate; the servers that ``launch`` starts in the same test have it."""
    with Gate(tmp_path / "gate") as gate:
        yield gate


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """Give a FIFO for which handlers can wait."""
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


@pytest.fixture(scope="module")
def module_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """Give a gate for the servers that the tests of a module share."""
    with Gate(tmp_path_factory.mktemp("gate") / "gate") as gate:
        yield gate


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked so in several schemes, or with both implementations."""
    marker = metafunc.definition.get_closest_marker("scheme")
    if marker is not None and "scheme" in metafunc.fixturenames:
        metafunc.parametrize("scheme", marker.args, indirect=True)
    marker = metafunc.definition.get_closest_marker("both")
    if marker is not None and "implementation" in metafunc.fixturenames and core.compiled:
        metafunc.parametrize("implementation", ["compiled", "pure"], indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run each test of the scheme ``accept`` once: what waits and accepts is the same code there.

    Leave out what needs Linux, if nothing of that is used.
    """
    items[:] = [
        item
        for item in items
        if not {"pure", "accept"} <= _parameters(item)
        and not (features.IS_FORCED and _needs_linux(item))
    ]


def _needs_linux(item: pytest.Item) -> bool:
    """Whether a test is marked so, or runs in a scheme that is for Linux only."""
    return bool(item.get_closest_marker("linux") or _parameters(item) & {"shared", "dispatch"})


def _parameters(item: pytest.Item) -> set[str]:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {one for one in parameters if isinstance(one, str)}


@pytest.fixture(scope="module")
def implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have the servers that are started, or forked, serve in pure Python, if this is the parameter."""
    with pytest.MonkeyPatch.context() as patch:
        if getattr(request, "param", "") == "pure":
            patch.setitem(ENVIRONMENT, core.VARIABLE, "1")
            patch.setattr(core, "compiled", False)
        yield


@pytest.fixture
def scheme(request: pytest.FixtureRequest) -> str:
    """Give the scheme of the servers that are launched; "": the default."""
    return str(getattr(request, "param", ""))


@pytest.fixture
def launch(
    tmp_path: Path, scheme: str, implementation: None, request: pytest.FixtureRequest
) -> Iterator[Launch]:
    """Start servers with the arguments of ``ServerProcess``, and kill what is left at the end."""
    with contextlib.ExitStack() as stack:

        def start(target: str = "workshop.py", *options: str, **more: Any) -> ServerProcess:
            if "gate" in request.fixturenames:
                more["gate"] = request.getfixturevalue("gate")
            server = ServerProcess(tmp_path, target, *options, **{"scheme": scheme, **more})
            return stack.enter_context(server)

        yield start


@pytest.fixture
def other_users_directory() -> Iterator[Path]:
    """Give a directory of ``OTHER_USER`` if the tests run as root, otherwise one of this user."""
    with tempfile.TemporaryDirectory(prefix="linepool-test-") as name:
        if os.getuid() == 0:
            os.chown(name, OTHER_USER, OTHER_USER)
        yield Path(name)
