"""The hooks that an app registers: functions that are called when something happens to its server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from linepool.errors import SetupError
from linepool.events import KINDS
from linepool.handlers.checks import check_call, check_plain_function
from linepool.handlers.inject import described
from linepool.hooks import HookFunctions
from linepool.signatures import signature_of

F = TypeVar("F", bound=Callable[..., Any])


class AppHooks:
    """Registers the hooks of an app; of each there may be several functions, which run in their order."""

    def __init__(self) -> None:
        super().__init__()
        self._hooks = HookFunctions()

    def on_start(self, function: F) -> F:
        """Call a function in the loader, before the first fork, and again at each reload."""
        check_call(function, "on_start")
        return self._hooks.add("on_start", function)

    def on_worker_start(self, function: F) -> F:
        """Call a function in each worker, after its resources have been opened."""
        return self._hooks.add("on_worker_start", function)

    def on_worker_exit(self, function: F) -> F:
        """Call a function in each worker that exits gracefully, before its resources are closed.

        ``on_worker_end`` is called for each worker, however it ends, but in another process.
        """
        return self._hooks.add("on_worker_exit", function)

    def on_connect(self, function: F) -> F:
        """Call a function for each new connection.

        What it returns greets the client; ``ClientError`` refuses the connection.
        """
        return self._hooks.add("on_connect", function)

    def on_disconnect(self, function: F) -> F:
        """Call a function once for each connection that has ended."""
        return self._hooks.add("on_disconnect", function)

    def when_ready(self, function: F) -> F:
        """Call ``function(ready)`` in the observer, when the first workers are up.

        The observer is a process beside the workers, which a server has if its app has such a hook; so
        nothing waits for the function. It may take ``observer_timeout`` seconds. It is not called after a
        reload, nor by ``App.ask``. The argument is a ``ServerReady``; a function without parameters
        is called without it.

        Raises:
            SetupError: It cannot be called like this.
        """
        return self._observing("when_ready", function, "ready")

    def on_reload(self, function: F) -> F:
        """Call ``function(end)`` in the observer, when a reload has ended or failed; see ``when_ready``.

        The argument is a ``ReloadEnd``. The function is that of the generation in force then: the new
        one, or the old one if the reload failed.

        Raises:
            SetupError: It cannot be called like this.
        """
        return self._observing("on_reload", function, "end")

    def on_worker_end(self, function: F) -> F:
        """Call ``function(end)`` in the observer, when a worker has ended, however; see ``when_ready``.

        The argument is a ``WorkerEnd``, with the worker's pid, and how and why it ended.

        Raises:
            SetupError: It cannot be called like this.
        """
        return self._observing("on_worker_end", function, "end")

    def on_stop(self, function: F) -> F:
        """Call ``function()`` in the observer, when the server stops and the last worker has ended.

        After ``observer_timeout`` (a second, if the server stops at once) it ends all the same.

        Raises:
            SetupError: It cannot be called like this.
        """
        return self._observing("on_stop", function)

    @property
    def observed(self) -> Mapping[str, tuple[str, ...]]:
        """The functions that the observer runs, as ``name at file:line``, by the name of the hook."""
        return {
            name: tuple(map(described, self._hooks.of(name)))
            for name in KINDS
            if self._hooks.of(name)
        }

    def call_observing(self, name: str, number: int, event: Any) -> None:
        """Call a function that the observer runs.

        Args:
            name: Of the hook.
            number: Which of its functions; the first is 0.
            event: What it is given; None: nothing.

        Raises:
            LookupError: No function of that name is registered.
        """
        function = self._hooks.of(name)[number]
        if event is None or _takes_nothing(function):
            function()
        else:
            function(event)

    def _observing(self, name: str, function: F, *arguments: str) -> F:
        check_plain_function(function)
        if inspect.isgeneratorfunction(function):
            raise SetupError(f"{name} {described(function)} must not be a generator")
        if not _takes_nothing(function):
            check_call(function, name, *arguments)
        return self._hooks.add(name, function)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function has no parameters at all."""
    try:
        return not signature_of(function).parameters
    except ValueError:  # of a builtin function, they may not be known
        return False
