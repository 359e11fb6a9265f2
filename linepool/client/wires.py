"""The protocols that a client speaks, by their names; all but the first are imported only if used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from linepool.client.command import Command
from linepool.client.core import Core
from linepool.client.line import LineCore
from linepool.client.request import Prepared, Result, prepare

ProtocolName = Literal["line", "jsonrpc", "resp"]
Prepare = Callable[
    [str | Command[Any] | Callable[..., Any], Sequence[Any], Mapping[str, Any]],
    tuple[Prepared, Result],
]


class Spoken(NamedTuple):
    """A protocol.

    Attributes:
        name: Its name.
        prepare: Returns the request of a call, and what becomes of its reply; see ``request.prepare``.
        core: Makes the bytes of a new connection.
    """

    name: ProtocolName
    prepare: Prepare
    core: Callable[[], Core]


def spoken(name: ProtocolName) -> Spoken:
    """Return a protocol by its name; raises ValueError if there is none."""
    if name == "line":
        return Spoken(name, prepare, LineCore)
    if name == "jsonrpc":
        from linepool.client import jsonrpc  # noqa: PLC0415 - few need it

        return Spoken(name, jsonrpc.prepare, jsonrpc.JsonRpcCore)
    if name == "resp":
        from linepool.client import resp, resp_calls  # noqa: PLC0415 - few need them

        return Spoken(name, resp_calls.prepare, resp.RespCore)
    raise ValueError(f"protocol must be 'line', 'jsonrpc' or 'resp', not {name!r}")
