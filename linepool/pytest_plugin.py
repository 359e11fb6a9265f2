"""The pytest plugin: the fixture ``linepool_server``, available once linepool is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from linepool.app import App
    from linepool.testing import Server


@pytest.fixture
def linepool_server() -> Iterator[Callable[..., Server]]:
    """Start servers as ``serve`` does; stop them all after the test."""
    from linepool.testing import serve  # noqa: PLC0415 - the plugin is loaded by every pytest run

    with contextlib.ExitStack() as stack:

        def start(app: App, **settings: Any) -> Server:
            return stack.enter_context(serve(app, **settings))

        yield start
