"""Clients of the service, one class for each protocol: one connection, one request at a time."""

from __future__ import annotations

import contextlib
import importlib
import json
import select
import socket
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import urlencode

_CONNECT_LIMIT = 2.0  # seconds
_PARAMETERS = {"COLLATZ": ("n",), "SLEEP": ("seconds",)}
CLOSED = "cut off"
REFUSED = "refused"
SILENT = "without a reply in time"
ERROR = "error replies"


class FailedError(Exception):
    """A request without the reply that it asks for.

    Args:
        kind: One of CLOSED, REFUSED, SILENT and ERROR.
        text: What the client read, in words.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Client(ABC):
    """One connection."""

    closes = False
    """Whether the server has said that it closes the connection after the last reply."""

    @abstractmethod
    def ask(self, limit: float, command: str, *arguments: object) -> str:
        """Send a request and return the reply.

        Raises:
            FailedError: There is no reply within ``limit`` seconds, or it is an error.
        """

    @abstractmethod
    def is_cut(self) -> bool:
        """Whether the server has closed the connection since the last reply."""

    @abstractmethod
    def abort(self) -> None:
        """End the connection, and with it a request of another thread that waits for its reply."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class SocketClient(Client):
    """One connection of a socket; subclasses say how requests and replies are written.

    Attributes:
        received: The length of the last reply in bytes.
    """

    received = 0

    def __init__(self, port: int) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), _CONNECT_LIMIT)
        except OSError as error:
            raise FailedError(REFUSED, "the connection is refused") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @abstractmethod
    def request(self, command: str, arguments: tuple[object, ...]) -> bytes:
        """Return the bytes of a request."""

    @abstractmethod
    def parse(self, data: bytes) -> str | None:
        """Return the reply, or None if it is not complete.

        Raises:
            FailedError: It is an error.
        """

    def ask(self, limit: float, command: str, *arguments: object) -> str:
        return self.exchange(limit, self.request(command, arguments))

    def exchange(self, limit: float, request: bytes) -> str:
        """Send the bytes of a request and return the reply, as ``ask`` does."""
        data = b""
        try:
            self._socket.settimeout(limit)
            self._socket.sendall(request)
            while (reply := self.parse(data)) is None:
                received = self._socket.recv(65536)
                if not received:
                    raise FailedError(CLOSED, "the connection ends, without a reply")
                data += received
        except TimeoutError as error:
            raise FailedError(SILENT, f"nothing in {limit:g} s") from error
        except OSError as error:
            raise FailedError(CLOSED, "the connection ends, without a reply") from error
        self.received = len(data)
        return reply

    def is_cut(self) -> bool:
        return bool(select.select([self._socket], [], [], 0)[0])

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


class Lines(SocketClient):
    """Lines of words."""

    def request(self, command: str, arguments: tuple[object, ...]) -> bytes:
        return " ".join([command, *map(str, arguments)]).encode() + b"\n"

    def parse(self, data: bytes) -> str | None:
        if not data.endswith(b"\n"):
            return None
        text = data.decode().strip()
        if text.startswith(("ERROR", "CLIENT_ERROR", "SERVER_ERROR")):
            raise FailedError(ERROR, f"`{text}`")
        return text


class Http(SocketClient):
    """HTTP/1.1, with the command as the path."""

    def request(self, command: str, arguments: tuple[object, ...]) -> bytes:
        query = urlencode(dict(zip(_PARAMETERS.get(command, ()), arguments, strict=True)))
        path = f"/{command.lower()}" + f"?{query}" * bool(query)
        return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    def parse(self, data: bytes) -> str | None:
        head, found, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        if not found or len(body) < int(fields.get("content-length", "0")):
            return None
        self.closes = "close" in fields.get("connection", "")
        if status.split()[1] != "200":
            raise FailedError(ERROR, f"`{status.upper()}`")
        return body.decode().strip()


class Functions(SocketClient):
    """RESP, with the command as the name of a function of Redis."""

    def request(self, command: str, arguments: tuple[object, ...]) -> bytes:
        return resp("FCALL", command.lower(), "0", *map(str, arguments))

    def parse(self, data: bytes) -> str | None:
        if not data.endswith(b"\r\n"):
            return None
        text = data.decode().strip()
        if text.startswith("-"):
            raise FailedError(ERROR, f"`{text}`")
        return text.lstrip("+:")


def resp(*words: str) -> bytes:
    """Return a command as RESP has it."""
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in map(str.encode, words)]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


class Grpc(Client):
    """A channel of grpcio; the limit is sent to the server as the request's deadline."""

    def __init__(self, port: int) -> None:
        self._grpc: Any = importlib.import_module("grpc")
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        self._channel = self._grpc.insecure_channel(f"127.0.0.1:{port}", options)

    def ask(self, limit: float, command: str, *arguments: object) -> str:
        call = self._channel.unary_unary(f"/Service/{command}")
        try:
            reply = json.loads(call(json.dumps(arguments).encode(), timeout=limit))
        except self._grpc.RpcError as error:
            raise self._failure(error) from error
        except ValueError as error:  # the channel was closed by abort()
            raise FailedError(CLOSED, str(error)) from error
        return "OK" if reply is None else str(reply)

    def _failure(self, error: Any) -> FailedError:
        code, details = error.code().name, error.details()
        kinds = {"DEADLINE_EXCEEDED": SILENT, "UNAVAILABLE": CLOSED, "CANCELLED": CLOSED}
        kind = kinds.get(code, ERROR)
        if "connect" in details.lower() and kind == CLOSED:
            kind = REFUSED
        return FailedError(kind, f"`{code}`")

    def is_cut(self) -> bool:
        return False  # a channel connects anew by itself

    def abort(self) -> None:
        self._channel.close()

    def close(self) -> None:
        self._channel.close()
