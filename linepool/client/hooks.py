"""Functions of the user's around each call, for metrics and traces."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from linepool.client.core import Core, Event, Kind
from linepool.client.request import Prepared

if TYPE_CHECKING:
    import logging


class Call:
    """A call, as hooks see it.

    Attributes:
        command: The name of its command, as the client wrote it.
        protocol: What is spoken: ``line``, ``jsonrpc`` or ``resp``.
        id: Its id, which the server's log has too; "" in other protocols than ``line``.
        address: The server's, as it was given to the client; "" until a connection is chosen.
        retries: How often it was sent again.
        seconds: How long it has taken, a stream to its end; 0 until then.
        error: What it has ended with: an exception of the client or of the server, or the cancellation of
            the task; None: its result, or not yet.
        traceparent: What is sent to the server (W3C Trace Context); "": nothing. A hook may set it before
            its ``yield``.
    """

    def __init__(self, protocol: str, command: str, number: str) -> None:
        self.protocol = protocol
        self.command = command
        self.id = number
        self.address = ""
        self.retries = 0
        self.seconds = 0.0
        self.error: BaseException | None = None
        self.traceparent = ""


Hook = Callable[[Call], Iterator[None]]
"""A generator function that yields once: the call takes place then, and the rest runs when it is over."""


class Observed:
    """Requests that are sent together, with the hooks around them.

    Args:
        hooks: None: nothing is done.
        requests: What is to be sent ...
        core: ... on a connection that this makes.

    Attributes:
        calls: One for each request, if there are hooks.
        requests: With what the hooks have added.
    """

    def __init__(
        self, hooks: Sequence[Hook], requests: Sequence[Prepared], core: Callable[[], Core]
    ) -> None:
        self.requests = requests
        self.calls: list[Call] = []
        self._around: list[tuple[Call, Iterator[None]]] = []
        if hooks:
            self._begin(hooks, core())

    def __enter__(self) -> Observed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(error)

    def take(self, address: str) -> None:
        """Note where the requests are sent."""
        for call in self.calls:
            call.address = address

    def again(self) -> None:
        """Note that they are sent again."""
        for call in self.calls:
            call.retries += 1

    def note(self, events: Sequence[Event]) -> None:
        """Note the replies."""
        for call, (kind, value) in zip(self.calls, events, strict=False):
            if kind is Kind.ERROR:
                call.error = value

    def end(self, error: BaseException | None = None) -> None:
        """Have the hooks run to their ends, once; ``error``: what the calls have ended with."""
        for call in self.calls:
            call.error = call.error or error
            call.seconds = monotonic() - self._began
        around, self._around = self._around, []
        for call, one in reversed(around):
            if _proceeds(one, call):
                if isinstance(one, Generator):
                    one.close()
                _log().error("hook of a client must yield once command=%s", call.command)

    def _begin(self, hooks: Sequence[Hook], core: Core) -> None:
        self._began = monotonic()
        for request in self.requests:
            call = Call(core.protocol, core.command_in(request.line), request.name)
            self.calls.append(call)
            for hook in hooks:
                one = _started(hook, call)
                if one is not None:
                    self._around.append((call, one))
        self.requests = [
            request._replace(trace=call.traceparent)
            for request, call in zip(self.requests, self.calls, strict=True)
        ]


def _started(hook: Hook, call: Call) -> Iterator[None] | None:
    """Return a hook at its ``yield``; None: it does not come to one."""
    try:
        one = hook(call)
    except Exception:  # noqa: BLE001 - logged
        _log().exception("hook of a client failed command=%s", call.command)
        return None
    if not hasattr(one, "__next__"):
        _log().error("hook of a client must be a generator function command=%s", call.command)
        return None
    return one if _proceeds(one, call) else None


def _proceeds(hook: Iterator[None], call: Call) -> bool:
    """Run a hook to its next ``yield``; return whether there is one. What it raises changes no call."""
    try:
        next(hook)
    except StopIteration:
        return False
    except Exception:  # noqa: BLE001 - logged
        _log().exception("hook of a client failed command=%s", call.command)
        return False
    return True


def _log() -> logging.Logger:
    import logging  # noqa: PLC0415 - a client may not need it

    return logging.getLogger("linepool")
