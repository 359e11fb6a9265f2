"""What the blocking client and that of asyncio have in common: options, and the calls of a pipeline."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Generic, ParamSpec, Self, TypeVar, overload

from linepool.client.command import Command
from linepool.client.core import Event, Kind
from linepool.client.flow import Flow, check_seconds
from linepool.client.request import Prepared, Result
from linepool.client.wires import Prepare, ProtocolName, Spoken
from linepool.idempotent import is_marked

P = ParamSpec("P")
R = TypeVar("R")


class Calls:
    """A client's connections, and the options of its calls.

    Attributes:
        speaks: The protocol of its servers, unless the constructor is given another one.
    """

    speaks: ClassVar[ProtocolName] = "line"

    def __init__(self, flow: Flow, protocol: Spoken, timeout: float | None) -> None:
        if timeout is not None:
            check_seconds(timeout, "timeout")
        self._flow = flow
        self._protocol = protocol
        self._prepare = protocol.prepare
        self._timeout = timeout
        self._is_idempotent: bool | None = None  # None: as the called function is marked

    def with_options(self, *, timeout: float | None = -1, idempotent: bool | None = None) -> Self:
        """Return a client with other options for its calls, and the same connections.

        Args:
            timeout: As of the client; left out: the same.
            idempotent: Whether a call may be run twice: then it is sent again if its connection is lost
                before the reply. None: the same; at first, as the handler of a called function was
                registered, and False for a call by name.

        Raises:
            ValueError: The timeout is wrong.
        """
        other = copy.copy(self)
        if timeout != -1:
            if timeout is not None:
                check_seconds(timeout, "timeout")
            other._timeout = timeout
        if idempotent is not None:
            other._is_idempotent = idempotent
        return other

    def _may_repeat(self, command: object) -> bool:
        """Whether a call of a command may be run twice."""
        return is_marked(command) if self._is_idempotent is None else self._is_idempotent


class Pending(Generic[R]):
    """The result of a call in a pipeline."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._event: Event | None = None

    def result(self) -> R:
        """Return the result, or raise what the call would raise.

        Raises:
            RuntimeError: The pipeline has not been sent.
        """
        if self._event is None:
            raise RuntimeError(
                "the pipeline has not been sent; that happens at the end of its block"
            )
        kind, value = self._event
        if kind is Kind.ERROR:
            raise value
        made: R = self._result.several(value) if kind is Kind.SEVERAL else self._result.value(value)
        return made


class PipelineCalls:
    """Calls that are sent together."""

    def __init__(self, flow: Flow, prepare: Prepare, timeout: float | None) -> None:
        self._flow = flow
        self._prepare = prepare
        self._timeout = timeout
        self._requests: list[Prepared] = []
        self._pending: list[Pending[Any]] = []

    @overload
    def call(self, command: str, /, *args: Any, **kwargs: Any) -> Pending[Any]: ...

    @overload
    def call(self, command: Command[R], /, *args: Any, **kwargs: Any) -> Pending[R]: ...

    @overload
    def call(self, command: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Pending[R]: ...

    def call(self, command: Any, /, *args: Any, **kwargs: Any) -> Pending[Any]:
        """Add a call, as of ``Client.call``; its result is there after the block."""
        request, result = self._prepare(command, args, kwargs)
        pending: Pending[Any] = Pending(result)
        self._requests.append(request)
        self._pending.append(pending)
        return pending

    async def _send(self) -> None:
        requests, self._requests = self._requests, []
        pending, self._pending = self._pending, []
        events = await self._flow.pipeline(requests, self._timeout)
        for one, event in zip(pending, events, strict=True):
            one._event = event
