"""What the bytes of a connection are to a client's calls, in whichever protocol. No I/O, no clock."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, ClassVar, NoReturn

from linepool.digits import is_whole


class Kind(Enum):
    """What has come.

    Attributes:
        VALUE: A reply of one value.
        OPENING: A reply of several values begins.
        ITEM: One of several values.
        END: No further value comes; the reply is complete.
        ERROR: An error in place of a reply, or of the values still to come; the reply is complete.
        PUSH: A value that a handler has pushed; part of no reply.
        REFUSAL: An error that is about the connection, which ends.
        SEVERAL: A whole reply of several values, as a list; from ``reply`` only.
    """

    VALUE = auto()
    OPENING = auto()
    ITEM = auto()
    END = auto()
    ERROR = auto()
    PUSH = auto()
    REFUSAL = auto()
    SEVERAL = auto()


VALUE, SEVERAL, ERROR, END = Kind.VALUE, Kind.SEVERAL, Kind.ERROR, Kind.END
Event = tuple[Kind, Any]
"""What has come, with its value, or the error as an exception."""


class ProtocolError(Exception):
    """The bytes are not the replies to what was sent, so the connection must be closed."""


class Core(ABC):
    """The bytes of one connection."""

    protocol: ClassVar[str]
    """The name of what is spoken."""

    @staticmethod
    @abstractmethod
    def command_in(line: bytes) -> str:
        """Return the name of the command in a prepared request, for hooks."""

    def __init__(self) -> None:
        self._items: list[Any] = []

    @property
    @abstractmethod
    def is_at_rest(self) -> bool:
        """Whether all replies have come, and nothing else."""

    @abstractmethod
    def request(
        self, line: bytes, as_json: bool, name: str = "", trace: str = "", wait_ms: int = 0
    ) -> bytes:
        """Return the bytes of a request, with what the protocol can say of it.

        Args:
            line: What the protocol's ``prepare`` has made of a call ...
            as_json: ... both.
            name: Its id in logs and errors; "": none.
            trace: The ``traceparent`` of the caller (W3C Trace Context); "": none.
            wait_ms: How long its reply is waited for; 0: without limit.
        """

    @abstractmethod
    def log_in(self, user: str, password: str) -> bytes:
        """Return the bytes of the request that logs in on a new connection."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Take bytes from the server, cut anywhere.

        Raises:
            ProtocolError: There are none, as the stream has ended.
        """

    @abstractmethod
    def event(self) -> Event | None:
        """Return what has come next, or None: more bytes are needed.

        Raises:
            ProtocolError: It is not a reply to what was sent.
        """

    def reply(self) -> Event | None:
        """Return the next reply as a whole: a VALUE, SEVERAL, an ERROR or a REFUSAL.

        None: more bytes are needed.

        Raises:
            ProtocolError: As in ``event``.
        """
        while (event := self.event()) is not None:
            kind, value = event
            if kind is Kind.ITEM:
                self._items.append(value)
            elif kind is Kind.END:
                items, self._items = self._items, []
                return SEVERAL, items
            elif kind not in (Kind.OPENING, Kind.PUSH):
                self._items = []
                return event
        return None


class WholeReplies(Core):
    """The bytes of one connection, in a protocol that sends several values as one list."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = Buffer()
        self._ahead: deque[Event] = deque()  # the rest of a list

    @abstractmethod
    def _whole(self) -> Event | None:
        """Return the next VALUE, ERROR, PUSH or REFUSAL; None: more bytes are needed."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the server, cut anywhere."""
        self._buffer.feed(data)

    def reply(self) -> Event | None:
        """Return the next reply as a whole; a list is SEVERAL."""
        event = None if self._ahead else self._whole()
        if event is None or event[0] is Kind.PUSH:
            return super().reply()
        return (SEVERAL, event[1]) if _is_list(event) else event

    def event(self) -> Event | None:
        """Return what has come next; of a list, value by value."""
        if self._ahead:
            return self._ahead.popleft()
        event = self._whole()
        if event is None or not _is_list(event):
            return event
        self._ahead.extend((Kind.ITEM, item) for item in event[1])
        self._ahead.append((END, None))
        return Kind.OPENING, None


def _is_list(event: Event) -> bool:
    return event[0] is VALUE and type(event[1]) is list


class Buffer:
    """Bytes that have come, cut into lines and blocks in time that is linear in their length."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._parts: list[bytes] = []  # of what cannot be cut before more has come
        self._missing = 0  # bytes of a block; 0: the end of a line

    def __bool__(self) -> bool:
        """Whether there are bytes that were not cut off."""
        return bool(self._parts) or self._at < len(self._data)

    def feed(self, data: bytes) -> None:
        """Take bytes, as ``Core.feed``."""
        if not data:
            raise ProtocolError(ENDED)
        if self._parts:
            self._parts.append(data)
            if self._missing > 0:
                self._missing -= len(data)
                if self._missing > 0:
                    return
            elif b"\n" not in data:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        elif self._at < len(self._data):
            data = self._data[self._at :] + data
        self._data = data
        self._at = 0

    def line(self) -> bytes | None:
        """Return the next line without its LF; None: it has not come to its end."""
        if self._parts:
            return None
        end = self._data.find(b"\n", self._at)
        if end < 0:
            self._set_aside(0)
            return None
        line = self._data[self._at : end]
        self._at = end + 1
        return line

    def block(self, size: int) -> bytes | None:
        """Return the next bytes, so many; None: they have not all come."""
        if self._parts:
            return None
        stop = self._at + size
        if stop > len(self._data):
            self._set_aside(stop - len(self._data))
            return None
        block = self._data[self._at : stop]
        self._at = stop
        return block

    def _set_aside(self, missing: int) -> None:
        if self._at < len(self._data):
            self._parts.append(self._data[self._at :])
        self._missing = missing
        self._data = b""
        self._at = 0


def arguments_text(arguments: Sequence[Any], named: Mapping[str, Any]) -> bytes:
    """Return arguments as one JSON value, by position or by name.

    Raises:
        TypeError: JSON has no form for one of them, or they are given by position and by name.
        ValueError: One holds NaN, Infinity or itself.
    """
    if named and arguments:
        raise TypeError("give all arguments by position, or all by name")
    values = named or arguments
    if not named:
        try:
            texts = [_TEXTS[type(value)](value) for value in arguments]
        except KeyError:
            pass
        else:
            return f"[{','.join(texts)}]".encode()
    try:
        return _ENCODER.encode(values).encode()
    except (
        TypeError
    ):  # a value that is not of JSON; what is imported now takes as long as this package
        from linepool.values.json_text import dumps  # noqa: PLC0415

        return dumps(values)


def json_value(text: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ProtocolError: It is not JSON.
    """
    if is_whole(text, 18):
        return int(text)
    try:
        return _decode(text.decode())
    except (ValueError, RecursionError):
        raise ProtocolError(f"a reply is not JSON: {shown(text)}") from None


def shown(data: bytes) -> str:
    """Return the beginning of what a server has sent, for messages."""
    return ascii(data[:80].decode("latin-1"))


def not_spoken(what: str, data: bytes) -> ProtocolError:
    """Return the error about a server whose replies are in another protocol, which the text names if it can.

    Args:
        what: What they are not.
        data: One of them, or its beginning.
    """
    for name, begins in _BEGINNINGS.items():
        if data.startswith(begins):
            return ProtocolError(
                f"the server does not send {what}, but seems to speak {name}: {shown(data)}"
            )
    return ProtocolError(f"the server does not send {what}: {shown(data)}")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_BEGINNINGS: Mapping[str, tuple[bytes, ...]] = {
    "protocol='jsonrpc'": (b'{"jsonrpc"', b'[{"jsonrpc"'),
    "protocol='resp'": (b"-ERR ", b"-NOAUTH "),
    "protocol='line'": (b"ERROR unknown command", b"CLIENT_ERROR ", b"SERVER_ERROR "),
    "HTTP": (b"HTTP/",),
    "TLS, as for tls://HOST:PORT": (b"\x15\x03",),
}
"""How errors begin in other protocols."""
ENDED = "the connection was closed before the reply was complete"
# What JSON's own encoder does with a value at the top, in a quarter of the time.
_TEXTS: Mapping[type, Callable[[Any], str]] = {
    int: int.__repr__,
    str: json.encoder.encode_basestring,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): lambda _: "null",
}
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
