"""JSON-RPC 2.0 (jsonrpc.org/specification), one message per line, or with headers.

Rules, where the specification leaves a choice:

- A line ends with LF or CR LF, and a reply ends as its request did; a line of blanks is ignored. A
  message with headers (``Content-Length: 17``, as for language servers) gets a reply with headers.
- Text is UTF-8, without a byte order mark. NaN and Infinity are not JSON. Of two equal keys the
  second counts.
- A message may have up to ``max_body_bytes``; a longer one gets an error, and the connection
  closes.
- ``params`` that are neither a list nor an object make the request invalid; so does an id that is a
  list, an object, true or false.
- Method names are as registered; case counts.
- A member ``timeout_ms`` of a call, an extension, says how long its client waits for the reply. In a batch
  it has no effect, for the calls have one limit together.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from attrs import define

from linepool.errors import ClientError, ReplyError, SetupError
from linepool.login import Login
from linepool.protocols.base import SKIPPED, Bad, Builtin, Call, Command, Request
from linepool.protocols.buffered import Buffered
from linepool.protocols.jsonrpc.discover import described
from linepool.protocols.jsonrpc.replies import (
    AUTHENTICATION_FAILED,
    AUTHENTICATION_REQUIRED,
    INVALID_REQUEST,
    PARSE_ERROR,
    error_object,
)
from linepool.protocols.text import check_version
from linepool.session import Reply, Secret, Session
from linepool.values.json_text import dumps, loads

_MAX_HEADER_BYTES = 8192
_LENGTH = re.compile(rb"content-length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*\Z", re.IGNORECASE)
_DUMP = struct.Struct("<B2s")
_VERSION = 0x31
_AUTHENTICATE = "rpc.authenticate"
_MOST_WAIT_MS = 999_999_999
_LOGGED_BYTES = 128  # of a message
_METHOD = re.compile(rb'"method"\s*:\s*"([^"\\]*)"')


@define
class RpcRequest(Request):
    """One call, or a batch of them.

    Attributes:
        call_id: The client's id of the call, which the reply repeats.
        wants_reply: False for a notification.
        problem: The error of an invalid request, or None.
        parts: The calls of a batch; None for a single call.
        most_ns: How long the client waits for the reply, in ns; 0: it has not said.
        members: All that the client's object has; None: it is not an object.
    """

    call_id: str | float | None = None
    wants_reply: bool = True
    problem: ClientError | None = None
    parts: list[RpcRequest] | None = None
    members: dict[str, Any] | None = None
    most_ns: int = 0  # type: ignore[misc]  # of others it is always 0


class JsonRpc(Buffered):
    """JSON-RPC 2.0.

    Args:
        framing: ``lines``, or ``headers`` for Content-Length.
        batch: Accept batches; if not, a batch is an invalid request.
        title: The service's name in rpc.discover.
        max_batch: Limit of the calls of a batch; a longer one is an invalid request.
        max_batch_bytes: Limit of the replies of a batch together; the calls that come after it is
            reached are not run, and each gets an error.
        overtaking: While a call waits (docs/waiting.md), those behind it on its connection are answered. A
            client must tell replies apart by their ids then.
    """

    ignores_case = False
    typed = True
    can_wait: ClassVar[bool] = True
    public_builtins: ClassVar[frozenset[str]] = frozenset({_AUTHENTICATE})

    def __init__(
        self,
        *,
        framing: str = "lines",
        batch: bool = True,
        title: str = "linepool",
        max_batch: int = 1000,
        max_batch_bytes: int = 8 * 1024 * 1024,
        overtaking: bool = False,
    ) -> None:
        if framing not in ("lines", "headers"):
            raise SetupError(f"framing must be 'lines' or 'headers', not {framing!r}")
        self.framing = framing
        self.line_end = b"\n" if framing == "lines" else b""
        self.batch = batch
        self.title = title
        self.max_batch = max_batch
        self.max_batch_bytes = max_batch_bytes
        self.overtakes = overtaking

    def builtins(self) -> Iterable[Builtin]:
        """rpc.discover."""
        return ((("rpc.discover",), _discover),)

    def login_builtins(self) -> Iterable[Builtin]:
        """rpc.authenticate."""
        return (((_AUTHENTICATE,), _authenticate),)

    def locked_error(self, request: Request | None) -> ReplyError:
        """Return the error that says how to log in."""
        text = f"authentication required: call {_AUTHENTICATE} with user and password"
        return ClientError(text, code=AUTHENTICATION_REQUIRED)

    def login_error(self) -> ReplyError:
        """Return the error for a log-in with a wrong password."""
        return ClientError("authentication failed", code=AUTHENTICATION_FAILED)

    def check(self, commands: Iterable[Command]) -> None:
        """Refuse names that the specification reserves, and data blocks."""
        for command in commands:
            name = command.names[0]
            if name.startswith("rpc.") and not command.is_builtin:
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

    def take_back(self, request: Request) -> None:
        """Put a call in front of what has arrived."""
        self.put_back(self.raw(request))

    def raw(self, request: Request) -> bytes:
        """Return a call as it would arrive."""
        assert isinstance(request, RpcRequest)
        return self._message(dumps(request.members))

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
        """Return all state: the client's line ending, and the bytes that have arrived."""
        return _DUMP.pack(_VERSION, self._eol) + self._unread()

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        check_version(blob, _VERSION, _DUMP.size, "JSON-RPC")
        self.start()
        self._eol = _DUMP.unpack_from(blob)[1].rstrip(b"\0")
        self._buffer = blob[_DUMP.size :]

    def around(self, request: Request, session: Session, call: Call) -> Any:
        """Answer a call, or each call of a batch in one array."""
        if not isinstance(request, RpcRequest):
            return call(request)
        if request.parts is None:
            return self._outcome(request, call)
        replies: list[bytes] = []
        room = self.max_batch_bytes
        for part in request.parts:
            value = self._outcome(part, call) if room > 0 else self._not_run()
            if part.wants_reply:
                replies.append(self._object(part, value))
                room -= len(replies[-1])
        return Reply(raw=self._message(b"[%b]" % b",".join(replies)) if replies else b"")

    def encode(self, value: object, request: Request) -> bytes:
        """Return the response, or b"" after a notification."""
        if isinstance(request, RpcRequest) and not request.wants_reply:
            return b""
        return self._message(self._object(request, value))

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield one response, with the items of the stream as a list."""
        yield self.encode(list(items), request)

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the response with the error, or b"" after a notification."""
        if isinstance(request, RpcRequest) and not request.wants_reply:
            return b""
        return self._message(self._object(request, error))

    def _outcome(self, request: RpcRequest, call: Call) -> Any:
        if request.problem is not None:
            return request.problem
        return call(request, whole=True)

    def _not_run(self) -> ClientError:
        most = self.max_batch_bytes
        return ClientError(
            f"not run: the replies before it reach {most} bytes, the limit of a batch"
        )

    def _object(self, request: Request | None, value: object) -> bytes:
        """Return the response object of one call."""
        request_id = request.call_id if isinstance(request, RpcRequest) else None
        answer: dict[str, Any] = {"jsonrpc": "2.0"}
        if isinstance(value, Reply):
            value = value.value
        if isinstance(value, ReplyError):
            answer["error"] = error_object(value)
        else:
            answer["result"] = value
        answer["id"] = request_id
        return dumps(answer)

    def _message(self, data: bytes) -> bytes:
        if self.framing == "headers":
            return b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
        return data + self._eol

    def _line(self) -> Request | Bad | None:
        end = self._buffer.find(b"\n", self._at)
        length = (len(self._buffer) if end < 0 else end) - self._at
        if length > self.limits.max_body_bytes + 1:
            return self._too_long()
        if end < 0:
            self._await_line(self.limits.max_body_bytes + 2)
            return None
        line = self._buffer[self._at : end]
        self._at = end + 1
        self._eol = b"\r\n" if line.endswith(b"\r") else b"\n"
        return self._parse(line) if line.strip() else SKIPPED

    def _framed(self) -> Request | Bad | None:
        begin = self._at
        end = self._buffer.find(b"\r\n\r\n", begin, begin + _MAX_HEADER_BYTES)
        if end < 0:
            if len(self._buffer) - begin >= _MAX_HEADER_BYTES:
                return self._lost(INVALID_REQUEST, "the headers are too long")
            return None
        found = [_LENGTH.match(line) for line in self._buffer[begin:end].split(b"\r\n")]
        lengths = {int(match[1]) for match in found if match}
        if len(lengths) != 1:
            return self._lost(INVALID_REQUEST, "a message must begin with Content-Length: BYTES")
        stop = end + 4 + lengths.pop()
        if stop - end - 4 > self.limits.max_body_bytes:
            return self._too_long()
        if len(self._buffer) < stop:
            self._needed = stop - begin
            return None
        self._at = stop
        return self._parse(self._buffer[end + 4 : stop])

    def command_in(self, line: bytes) -> bytes:
        """Return the first method's name in a message, or in the beginning of one."""
        found = _METHOD.search(line)
        return found[1] if found else b""

    def _parse(self, data: bytes) -> Request:
        try:
            message = loads(data)
        except ValueError as error:
            return self._failed(data, PARSE_ERROR, f"Parse error: {error}")
        if not isinstance(message, list):
            return self._call(message, data)
        if not self.batch or not message:
            what = "an empty batch" if self.batch else "batches are not accepted"
            return self._failed(data, INVALID_REQUEST, f"Invalid Request: {what}")
        if len(message) > self.max_batch:
            what = f"a batch may have {self.max_batch} calls at most"
            return self._failed(data, INVALID_REQUEST, f"Invalid Request: {what}")
        parts = [self._call(one, data) for one in message]
        line = next(filter(None, map(_secret_line, parts)), data[:_LOGGED_BYTES].strip())
        return RpcRequest(b"batch", [], None, line=line, parts=parts)

    def _call(self, message: Any, data: bytes) -> RpcRequest:
        """Return the request of one message, with the error if it is invalid."""
        request = RpcRequest(b"", [], None, line=data[:_LOGGED_BYTES].strip())
        if not isinstance(message, dict):
            request.problem = _invalid("Invalid Request: a request must be an object")
            return request
        request.members = message
        request_id = message.get("id")
        if isinstance(request_id, bool) or not isinstance(request_id, str | int | float | None):
            request.problem = _invalid("Invalid Request: an id must be a string, a number or null")
            return request
        request.call_id = request_id
        wait = message.get("timeout_ms")
        if wait is not None and (type(wait) is not int or not 0 < wait <= _MOST_WAIT_MS):
            request.problem = _invalid("Invalid Request: timeout_ms must be whole, above 0")
            return request
        request.most_ns = (wait or 0) * 1_000_000
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
        return RpcRequest(b"", [], None, line=data[:_LOGGED_BYTES].strip(), problem=problem)

    def _too_long(self) -> Bad:
        most = self.limits.max_body_bytes
        return self._lost(INVALID_REQUEST, f"a message may have {most} bytes at most")

    def _lost(self, code: int, text: str) -> Bad:
        """Close: where the next message begins is unknown."""
        self._forget()
        return Bad(self.encode_error(ClientError(text, code=code), None), close=True)


def _discover(protocol: JsonRpc) -> dict[str, Any]:
    """Describe the service in OpenRPC."""
    return described(protocol.title, protocol.commands.values())


def _authenticate(login: Login, user: str, password: Secret) -> bool:
    """Log in."""
    login(user, password)
    return True


def _secret_line(part: RpcRequest) -> bytes:
    """Return what stands for a batch in the log if this is the call of a method with secrets, or b""."""
    has_secrets = part.command is not None and any(one.is_secret for one in part.command.parameters)
    return b'[{"method": "%b"}]' % part.verb if has_secrets else b""


def _invalid(text: str) -> ClientError:
    return ClientError(text, code=INVALID_REQUEST)
