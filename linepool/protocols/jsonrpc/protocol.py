"""JSON-RPC 2.0 (jsonrpc.org/specification), one message a line, or behind headers.

Rules, where the specification leaves a choice:

- A line ends with LF or CR LF, and a reply ends as its request did; a line of blanks is ignored. A
  message behind headers (``Content-Length: 17``, as language servers have it) is answered so.
- Text is UTF-8, without a byte order mark. NaN and Infinity are no JSON. Of two equal keys the
  second counts.
- A message may have ``max_body_bytes``; a longer one gets an error, and the connection ends.
- ``params`` that are no list and no object make the request invalid; so does an id that is a list,
  an object, true or false.
- Names of methods are as they were registered; case counts.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time
from enum import Enum
from typing import Any, NoReturn

import attrs
from attrs import define

from linepool.errors import (
    ClientError,
    ReplyError,
    ServerError,
    SetupError,
    UnknownCommand,
    UsageError,
)
from linepool.protocols.base import Bad, Builtin, Call, Command, Request
from linepool.protocols.buffered import Buffered
from linepool.protocols.jsonrpc.discover import described
from linepool.session import Reply, Session

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000

_MOST_HEADER_BYTES = 8192
_LENGTH = re.compile(rb"content-length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*\Z", re.IGNORECASE)
_DUMP = struct.Struct("<B2s")
_VERSION = 1
_SHOWN = 128  # bytes of a message, in logs


@define
class RpcRequest(Request):
    """One call, or a batch of them.

    Attributes:
        id: What the reply repeats.
        wants_reply: It is no notification.
        problem: What makes it no valid request, or None.
        parts: The calls of a batch; None: it is none.
    """

    id: str | float | None = None
    wants_reply: bool = True
    problem: ClientError | None = None
    parts: list[RpcRequest] | None = None


class JsonRpc(Buffered):
    """JSON-RPC 2.0.

    Args:
        framing: ``lines``, or ``headers`` for Content-Length.
        batch: Take batches; if not, a batch is an invalid request.
        title: What rpc.discover calls the service.
    """

    ignores_case = False
    typed = True

    def __init__(
        self, *, framing: str = "lines", batch: bool = True, title: str = "linepool"
    ) -> None:
        if framing not in ("lines", "headers"):
            raise SetupError(f"framing is lines or headers, not {framing!r}")
        self.framing = framing
        self.batch = batch
        self.title = title

    def builtins(self) -> Iterable[Builtin]:
        """rpc.discover."""
        return ((("rpc.discover",), _discover),)

    def check(self, commands: Iterable[Command]) -> None:
        """Refuse names that the specification keeps for itself, and data blocks."""
        for command in commands:
            name = command.names[0]
            if name.startswith("rpc.") and name != "rpc.discover":
                raise SetupError(f"method {name}: names that begin with rpc. are reserved")
            if command.body is not None:
                raise SetupError(f"method {name}: JSON-RPC has no data blocks; take a str")

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._eol = b"\n"

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed."""
        if self._needed and not self._join_block():
            return None
        return self._framed() if self.framing == "headers" else self._line()

    def eof(self) -> Bad | None:
        """Return the error for a client that ended its stream inside a message."""
        if not self._unread().strip():
            return None
        return self._lost(PARSE_ERROR, "the message is incomplete; it was not run")

    @property
    def is_replaceable(self) -> bool:
        """Whether this is in its initial state, so that a new object could replace it."""
        return self.at_boundary

    def dump(self) -> bytes:
        """Return all state: the client's line ending, and what has arrived."""
        return _DUMP.pack(_VERSION, self._eol) + self._unread()

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        if len(blob) < _DUMP.size or blob[0] != _VERSION:
            raise ValueError("not a dump of this version of JSON-RPC")
        self.start()
        self._eol = _DUMP.unpack_from(blob)[1].rstrip(b"\0")
        self._buffer = blob[_DUMP.size :]

    def around(self, request: Request, session: Session, call: Call) -> Any:
        """Answer a call; or each of a batch, in one array."""
        if not isinstance(request, RpcRequest):
            return call(request)
        if request.parts is None:
            return self._outcome(request, call)
        replies = []
        for part in request.parts:
            value = self._outcome(part, call)
            if part.wants_reply:
                replies.append(self._object(part, value))
        return Reply(raw=self._message(b"[%b]" % b",".join(replies)) if replies else b"")

    def encode(self, value: object, request: Request) -> bytes:
        """Return the response, or b"" after a notification."""
        if isinstance(request, RpcRequest) and not request.wants_reply:
            return b""
        return self._message(self._object(request, value))

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield one response: a stream is read to its end, and is a list."""
        yield self.encode(list(items), request)

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the response with the error, or b"" after a notification."""
        if isinstance(request, RpcRequest) and not request.wants_reply:
            return b""
        return self._message(self._object(request, error))

    # -- replies

    def _outcome(self, request: RpcRequest, call: Call) -> Any:
        if request.problem is not None:
            return request.problem
        return call(request, whole=True)

    def _object(self, request: Request | None, value: object) -> bytes:
        """Return the response object of one call."""
        number = request.id if isinstance(request, RpcRequest) else None
        answer: dict[str, Any] = {"jsonrpc": "2.0"}
        if isinstance(value, Reply):
            value = value.value
        if isinstance(value, ReplyError):
            answer["error"] = _error(value)
        else:
            answer["result"] = value
        answer["id"] = number
        return json.dumps(answer, default=_plain, allow_nan=False, separators=(",", ":")).encode()

    def _message(self, data: bytes) -> bytes:
        if self.framing == "headers":
            return b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
        return data + self._eol

    # -- requests

    def _line(self) -> Request | Bad | None:
        while True:
            end = self._buffer.find(b"\n", self._at)
            if end < 0:
                if len(self._buffer) - self._at > self.limits.max_body_bytes + 1:
                    return self._too_long()
                return None
            line = self._buffer[self._at : end]
            self._at = end + 1
            self._eol = b"\r\n" if line.endswith(b"\r") else b"\n"
            if len(line) > self.limits.max_body_bytes + 1:
                return self._too_long()
            if line.strip():
                return self._parse(line)

    def _framed(self) -> Request | Bad | None:
        begin = self._at
        end = self._buffer.find(b"\r\n\r\n", begin, begin + _MOST_HEADER_BYTES)
        if end < 0:
            if len(self._buffer) - begin >= _MOST_HEADER_BYTES:
                return self._lost(INVALID_REQUEST, "the headers are too long")
            return None
        found = [_LENGTH.match(line) for line in self._buffer[begin:end].split(b"\r\n")]
        lengths = {int(match[1]) for match in found if match}
        if len(lengths) != 1:
            return self._lost(INVALID_REQUEST, "a message begins with Content-Length: BYTES")
        stop = end + 4 + lengths.pop()
        if stop - end - 4 > self.limits.max_body_bytes:
            return self._too_long()
        if len(self._buffer) < stop:
            self._needed = stop - begin
            return None
        self._at = stop
        return self._parse(self._buffer[end + 4 : stop])

    def _parse(self, data: bytes) -> Request:
        try:
            message = json.loads(data.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            return self._failed(data, PARSE_ERROR, f"Parse error: {what}")
        if not isinstance(message, list):
            return self._call(message, data)
        if not self.batch or not message:
            what = "an empty batch" if self.batch else "batches are not taken"
            return self._failed(data, INVALID_REQUEST, f"Invalid Request: {what}")
        parts = [self._call(one, data) for one in message]
        return RpcRequest(b"batch", [], None, line=data[:_SHOWN].strip(), parts=parts)

    def _call(self, message: Any, data: bytes) -> RpcRequest:
        """Return the request of one message, with what is wrong with it."""
        request = RpcRequest(b"", [], None, line=data[:_SHOWN].strip())
        if not isinstance(message, dict):
            request.problem = _invalid("Invalid Request: a request is an object")
            return request
        number = message.get("id")
        if isinstance(number, bool) or not isinstance(number, str | int | float | None):
            request.problem = _invalid("Invalid Request: an id is a string, a number or null")
            return request
        request.id = number
        method = message.get("method")
        params = message.get("params", [])
        if message.get("jsonrpc") != "2.0":
            request.problem = _invalid('Invalid Request: "jsonrpc" must be "2.0"')
        elif not isinstance(method, str):
            request.problem = _invalid("Invalid Request: the method must be a string")
        elif not isinstance(params, list | dict):
            request.problem = _invalid("Invalid Request: params must be a list or an object")
        else:
            request.wants_reply = "id" in message
            request.verb = method.encode("utf-8", "surrogatepass")
            request.values = params
            request.command = self.commands.get(request.verb, self.unknown)
        return request

    def _failed(self, data: bytes, code: int, text: str) -> Request:
        """Return a request whose reply is an error."""
        problem = ClientError(text, code=code)
        return RpcRequest(b"", [], None, line=data[:_SHOWN].strip(), problem=problem)

    def _too_long(self) -> Bad:
        most = self.limits.max_body_bytes
        return self._lost(INVALID_REQUEST, f"a message may have {most} bytes at most")

    def _lost(self, code: int, text: str) -> Bad:
        self._forget()
        return Bad(self.encode_error(ClientError(text, code=code), None), close=True)


def _discover(protocol: JsonRpc) -> dict[str, Any]:
    """Describe the service, as OpenRPC does it."""
    return described(protocol.title, protocol.commands.values())


def _invalid(text: str) -> ClientError:
    return ClientError(text, code=INVALID_REQUEST)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _error(error: ReplyError) -> dict[str, Any]:
    """Return the error object."""
    text = str(error)
    if isinstance(error, UnknownCommand):
        code = METHOD_NOT_FOUND
        text = "Method not found"
    elif isinstance(error, UsageError):
        code = INVALID_PARAMS
        text = f"Invalid params: {text}"
    elif isinstance(error, ServerError):
        code = INTERNAL_ERROR
    else:
        code = SERVER_ERROR
    if isinstance(error.code, int):
        code = error.code
    found: dict[str, Any] = {"code": code, "message": text}
    if error.data is not None:
        found["data"] = error.data
    return found


def _plain(value: Any) -> Any:
    """Return what JSON has in place of a value that it does not have.

    Raises:
        TypeError: There is nothing.
    """
    kind: type = type(value)
    if attrs.has(kind):
        return {field.name: getattr(value, field.name) for field in attrs.fields(kind)}
    if fields := getattr(kind, "__dataclass_fields__", None):
        return {name: getattr(value, name) for name in fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    if kind.__module__.partition(".")[0] in ("decimal", "uuid", "pathlib", "ipaddress"):
        return str(value)
    raise TypeError(f"no reply is defined for {kind.__name__}")
