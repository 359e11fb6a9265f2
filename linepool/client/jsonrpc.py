"""JSON-RPC 2.0 (jsonrpc.org/specification), one message per line: calls, and the bytes of one connection."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linepool.client.command import Command
from linepool.client.core import (
    ERROR,
    VALUE,
    Event,
    Kind,
    ProtocolError,
    WholeReplies,
    arguments_text,
    json_value,
    not_spoken,
    shown,
)
from linepool.client.errors import CallTimeout
from linepool.client.request import (
    UNCHANGED,
    Prepared,
    Result,
    by_name,
    checked_name,
    described,
    known,
    without_unset,
)
from linepool.errors import ClientError, ReplyError, ServerError, UnknownCommand, UsageError

_METHOD_NOT_FOUND, _INVALID_PARAMS, _INTERNAL = -32601, -32602, -32603
_DEFAULTS = {-32700, -32600, _METHOD_NOT_FOUND, _INVALID_PARAMS, _INTERNAL, -32000}
_PREFIX = "Invalid params: "
_FAILURE_ID = re.compile(r"internal error, id ([\w.-]+)(?:, .*)?")


def prepare(
    command: str | Command[Any] | Callable[..., Any],
    arguments: Sequence[Any],
    named: Mapping[str, Any],
) -> tuple[Prepared, Result]:
    """Return the request of a call, and what becomes of its reply; as of the line protocol."""
    if isinstance(command, str):
        name, result = checked_name(command), UNCHANGED
    elif isinstance(command, Command):
        (name, result), named = known(command), without_unset(named)
    else:
        name, parameters, _, result = described(command)
        if named and arguments:
            arguments, named = (), by_name(command, parameters, arguments, named)
    method = json.dumps(name.decode()).encode()
    params = arguments_text(arguments, named)
    return Prepared(b'"method":%b,"params":%b' % (method, params), as_json=True), result


class JsonRpcCore(WholeReplies):
    """One connection."""

    protocol = "jsonrpc"

    @staticmethod
    def command_in(line: bytes) -> str:
        """Return the method."""
        return str(json.loads(b"{%b}" % line)["method"])

    def __init__(self) -> None:
        super().__init__()
        self._sent = 0
        self._awaited: deque[int] = deque()

    @property
    def is_at_rest(self) -> bool:
        """Whether all replies have come, and nothing else."""
        return not (self._awaited or self._ahead or self._buffer)

    def request(
        self, line: bytes, as_json: bool, name: str = "", trace: str = "", wait_ms: int = 0
    ) -> bytes:
        """Return the message of a request; ``timeout_ms`` and ``traceparent`` are extensions of linepool."""
        del as_json, name
        self._sent += 1
        self._awaited.append(self._sent)
        more = b',"timeout_ms":%d' % wait_ms if wait_ms else b""
        if trace:
            more += b',"traceparent":"%b"' % trace.encode()
        return b'{"jsonrpc":"2.0","id":%d,%b%b}\n' % (self._sent, line, more)

    def log_in(self, user: str, password: str) -> bytes:
        """Return the message of a call of rpc.authenticate."""
        params = arguments_text((user, password), {})
        return self.request(b'"method":"rpc.authenticate","params":%b' % params, as_json=True)

    def _whole(self) -> Event | None:
        line: bytes | None = b""
        while not line:
            if (line := self._buffer.line()) is None:
                return None
            line = line.strip()
        message = json_value(line) if line.startswith(b"{") else None
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            raise not_spoken("JSON-RPC 2.0", line)
        number, error = message.get("id"), message.get("error")
        if number is None and error is not None:  # about no request in particular
            return Kind.REFUSAL, _error_of(error)
        if not self._awaited or number != self._awaited[0]:
            raise ProtocolError(f"a reply to another request came: {shown(line)}")
        self._awaited.popleft()
        if error is not None:
            return ERROR, _error_of(error)
        return VALUE, message.get("result")


def _error_of(facts: Any) -> Exception:
    """Return the error that a server has sent."""
    if not isinstance(facts, dict) or not isinstance(facts.get("code"), int):
        raise ProtocolError(f"an error has no code: {str(facts)[:80]!a}")
    code, data, text = facts["code"], facts.get("data"), str(facts.get("message", ""))
    if code == _INTERNAL and isinstance(data, dict) and data.get("why") == "deadline":
        return CallTimeout(text, was_sent=True)
    error: ReplyError
    if code == _METHOD_NOT_FOUND:
        error = UnknownCommand(text)
    elif code == _INVALID_PARAMS and text.startswith(_PREFIX):
        what, _, usage = text.removeprefix(_PREFIX).partition(" Usage: ")
        error = UsageError(what, "value")
        error.usage = usage
    elif code == _INTERNAL:
        error = ServerError(text)
        if found := _FAILURE_ID.fullmatch(text):
            error.id = found[1]
    else:
        error = ClientError(text)
    if code not in _DEFAULTS:
        error.code = code
    error.data = data
    return error
