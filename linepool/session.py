"""What a handler is given by annotation, and what it may return. Pure: no I/O, no clock."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any
from typing import Protocol as Interface

from attrs import frozen

from linepool.encryption import Tls
from linepool.errors import ClientError
from linepool.proxy_header import Proxied
from linepool.pubsub.messages import Nowhere, PubSub

MOST_SESSION_BYTES = 8192
"""The largest size of a session, in bytes of JSON."""

_VERSION = "1"


class Verb(str):
    """Annotate a parameter with it to learn which of a handler's names was used.

    In upper case if the protocol ignores the case of commands.
    """

    __slots__ = ()


class Rest(str):
    """Annotate a parameter with it to get the rest of the line as text, blanks kept."""

    __slots__ = ()


class Secret(str):
    """Annotate a parameter with it to keep a text out of the log, of error replies and of your own messages.

    Printed or formatted it is ``***``; compared, encoded, joined and stored it is the text itself, and
    ``reveal()`` returns that. A parameter of another type is kept out of linepool's log and error replies
    by ``Annotated[int, linepool.Secret]``.
    """

    __slots__ = ()

    def reveal(self) -> str:
        """Return the text as an ordinary str."""
        return "".join(self)

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)


class Argument:
    """Annotate a parameter with ``Annotated[T, linepool.Argument]`` to have clients give its value.

    That is of use if a resource provides T, or a class from which T is derived: otherwise it is one anyway.
    """


@frozen
class Range:
    """Bounds of a number, both included: ``Annotated[int, linepool.Range(1, 100)]``."""

    min: float | None = None
    max: float | None = None

    def __str__(self) -> str:
        low = "" if self.min is None else str(self.min)
        high = "" if self.max is None else str(self.max)
        return f"{low}..{high}"


@frozen
class Body:
    """The default value that marks a parameter as the data block; made by ``body``.

    Attributes:
        size: The parameter with the length of the block; "": the protocol finds the end by itself.
    """

    size: str


def body(size: str = "") -> Any:
    """Mark a ``bytes`` parameter as the data block that follows the request's line.

    ::

        @linepool.handler
        def put(key: str, size: int, data: bytes = linepool.body("size")) -> None: ...

    Args:
        size: The name of the parameter with the block's length in bytes. The line ending that must
            follow the block is not counted, and is not part of the argument. Without a name: the
            protocol has its own end of a block, such as the dot of a dialogue.
    """
    return Body(size)


@frozen
class Reply:
    """A reply with full control.

    Attributes:
        value: What the protocol encodes, as if the handler had returned it.
        raw: Bytes to send exactly as they are, instead of ``value``; b"" sends nothing.
        close: Close the connection after this reply; nothing behind it is executed.
        start_tls: Begin TLS after this reply, in plain text, if ``session.starttls`` is true. Session and
            protocol begin anew then, and what the client has sent behind the command is refused.
    """

    value: object = None
    raw: bytes | None = None
    close: bool = False
    start_tls: bool = False


class Session(dict[str, Any]):
    """What a connection remembers between its requests: a dict of plain data.

    Values are those of JSON: None, bool, int, float, str, and lists and dicts (with str keys) of
    them, 8192 bytes of JSON in all. So a session can move to another process with its connection. A
    value of another type (TypeError), and one that is too large (ValueError), is refused when it is
    assigned. A value that is later changed in place is not checked again; if it cannot be serialised
    then, its connection stays in its worker.

    Attributes:
        id: A name for the connection in logs.
        peer: The address of the client: ``host:port``, or ``unix`` for a unix socket.
        proxy: What the proxy has said that the connection came through; None: it came through none.
        listener: The address that the client connected to, as ``bind`` writes it.
        pid: Of the process that has connected to a unix socket, as it was then (unix(7), SO_PEERCRED);
            None with TCP. It says less than it seems: another process may have taken over the connection,
            and its number may be another's by now.
        uid: Of that process' user; None with TCP.
        gid: Of its group; None with TCP.
        user: The name of the user who has logged in; without ``App.authenticate`` it is free for the app.
            There are no further attributes.
        failed_logins: How many log-ins in a row have failed.
        tls: Of a connection with TLS, what is known of it; else None.
        starttls: Whether TLS may begin: the connection is in plain text, and has the setting ``starttls``.
    """

    # Any other attribute would not move along. _at_most is an upper bound of the size of its JSON.
    __slots__ = (
        "_at_most",
        "failed_logins",
        "gid",
        "id",
        "listener",
        "peer",
        "pid",
        "proxy",
        "starttls",
        "tls",
        "uid",
        "user",
    )

    def __init__(
        self,
        id: str = "",
        peer: str = "",
        listener: str = "",
        credentials: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.pid: int | None = None
        self.uid: int | None = None
        self.gid: int | None = None
        if credentials is not None:
            self.pid, self.uid, self.gid = credentials
        self.id = id
        self.peer = peer
        self.listener = listener
        self.user: str | None = None
        self.tls: Tls | None = None  # such a connection does not move
        self.starttls = False
        self.proxy: Proxied | None = None
        self.failed_logins = 0
        self._at_most = len("{}")

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a session's keys are str, not {type(key).__name__}")
        # To write all as JSON takes 3 µs or more, so it is done only when the bound says nothing.
        would_be = self._at_most + _most_bytes(key, value)
        if would_be > MOST_SESSION_BYTES:
            would_be = self._size_of({**self, key: value}, key)
        dict.__setitem__(self, key, value)
        self._at_most = would_be

    def _size_of(self, would_be: dict[str, Any], key: str) -> int:
        try:
            _check_plain(would_be[key], key)
            size = len(json.dumps(would_be))
        except (ValueError, RecursionError) as error:  # an int with too many digits, a cycle
            raise ValueError(f"session value {key!r} cannot be written as JSON: {error}") from None
        if size > MOST_SESSION_BYTES:
            raise ValueError(
                f"with {key!r} the session would hold {size} bytes of JSON, at most"
                f" {MOST_SESSION_BYTES} are allowed; keep larger values in a store"
            )
        return size

    def dump(self) -> bytes:
        """Return all of it, for ``load`` in another process.

        Raises:
            TypeError, ValueError, RecursionError: A value was changed in place, and is not plain data.
        """
        _check_plain(self.user, "user")
        for key, value in self.items():
            _check_plain(value, key)
        values = ""
        if self.failed_logins:
            proxy = self.proxy and self.proxy.as_json()
            values = json.dumps([self.user, self, proxy, self.failed_logins])
        elif self.proxy is not None:
            values = json.dumps([self.user, self, self.proxy.as_json()])
        elif self or self.user is not None:
            values = json.dumps([self.user, self])
        peer = self.peer
        if self.uid is not None:
            peer = f"{peer} {self.pid} {self.uid} {self.gid}"
        text = "\0".join((_VERSION, self.id, peer, self.listener, values))
        return text.encode("utf-8", "surrogatepass")  # a path may hold any bytes

    @classmethod
    def load(cls, blob: bytes) -> Session:
        """Return the session that ``dump`` gave.

        Raises:
            ValueError: It is of an unknown version, or malformed.
        """
        version, _, text = blob.decode("utf-8", "surrogatepass").partition("\0")
        if version != _VERSION:
            raise ValueError(unknown_version(version, _VERSION, "a session"))
        id, peer, listener, values = text.split("\0", 3)
        credentials = None
        if peer.startswith("unix "):
            peer, *numbers = peer.split(" ")
            credentials = _credentials(numbers)
        session = cls(id, peer, listener, credentials)
        if values:
            facts: list[Any] = [*json.loads(values), None, 0]
            session.user, items, proxy, failed = facts[:4]
            session.proxy = Proxied(**proxy) if proxy else None
            session.failed_logins = failed or 0
            dict.update(session, items)
            session._at_most = len(values)
        return session

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As dict.setdefault, with the check of an assignment."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(  # type: ignore[override]
        self, *others: Mapping[str, Any] | Iterable[tuple[str, Any]], **more: Any
    ) -> None:
        """As dict.update, with the check of an assignment."""
        for key, value in dict(*others, **more).items():
            self[key] = value

    def __ior__(self, other: Any) -> Session:  # type: ignore[override,misc]
        self.update(other)
        return self


def _credentials(numbers: list[str]) -> tuple[int, int, int]:
    """Return pid, uid and gid; raises ValueError if they are something else."""
    pid, uid, gid = map(int, numbers)
    return pid, uid, gid


_ESCAPED_BYTES = len(r"\ud83d\ude00")  # of a character, at most
_NUMBER_BYTES = 26  # of a float or of an int of 64 bits, at most; None and bool are shorter


def _most_bytes(key: str, value: object) -> int:
    """Return how many bytes of JSON a value adds to a session at most; too many if that is not plain."""
    kind = type(value)
    if kind is str:
        size = _ESCAPED_BYTES * len(value)  # type: ignore[arg-type]
    elif kind is int:
        size = _NUMBER_BYTES if -(2**63) <= value < 2**63 else MOST_SESSION_BYTES  # type: ignore[operator]
    elif kind is float or kind is bool or value is None:
        size = _NUMBER_BYTES
    else:
        return MOST_SESSION_BYTES
    return size + _ESCAPED_BYTES * len(key) + len('"": "", ')


def _check_plain(value: object, where: str) -> None:
    if value is None or type(value) in (bool, int, float, str):
        return
    if type(value) is list:
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"session value {where!r} has a key {key!r}; keys must be str")
            _check_plain(item, f"{where}.{key}")
    else:
        raise TypeError(
            f"session value {where!r} is a {type(value).__name__}; a session holds plain data only"
            " (None, bool, int, float, str, list, dict)"
        )


def unknown_version(found: int | str, read: int | str, what: str) -> str:
    """Return the error about a dump of a version that this code does not read."""
    return (
        f"version {str(found)[:20]!r} of {what} is unknown; this code reads version {str(read)!r}"
    )


class Connection(ABC):
    """The live connection; a handler that asks for it by annotation pins it to this worker."""

    @property
    @abstractmethod
    def peer(self) -> str:
        """The address of the client: ``host:port``, or ``unix``."""

    @abstractmethod
    def close(self) -> None:
        """Close after the reply of this request; nothing behind it is executed."""

    @abstractmethod
    def push(self, value: object) -> None:
        """Send a value now, encoded as a reply, ahead of this request's own reply.

        Raises:
            OSError: The client is gone or does not read.
            TypeError, ValueError: No reply is defined for the value.
        """

    def subscribe(self, topic: bytes, *, pattern: bool = False) -> None:
        """Have messages sent to this connection, as they come, between replies.

        Args:
            topic: A channel's name, or a pattern as in Redis: ``news.*``.
            pattern: It is a pattern.

        Raises:
            ClientError: There are too many subscriptions, or this server does not publish.
        """
        raise ClientError("this server does not publish messages")

    def unsubscribe(self, topic: bytes, *, pattern: bool = False) -> None:
        """Remove a subscription."""
        del topic, pattern  # there is none

    def subscriptions(self, *, pattern: bool = False) -> list[bytes]:
        """Return the channels, or the patterns, that this connection has subscribed to."""
        return []

    @property
    def pubsub(self) -> PubSub:
        """Where messages are published."""
        return Nowhere()

    @abstractmethod
    def extend(self, seconds: float) -> None:
        """Move the deadline of the request being served to this many seconds from now."""


class _Encoding(Interface):
    """What a live connection without a socket needs of its conversation."""

    session: Session
    closing: bool

    def encode(self, value: object) -> bytes:
        """Return a value as a reply."""

    def end_batch_early(self) -> None:
        """End the batch in the middle of a handler."""


class Detached(Connection):
    """The live connection of a conversation without a socket: what is pushed is collected."""

    def __init__(self, conversation: _Encoding) -> None:
        self._conversation = conversation
        self._pushed: list[bytes] = []

    @property
    def peer(self) -> str:
        """The address of the client."""
        return self._conversation.session.peer

    def close(self) -> None:
        """Close after the reply of this request."""
        self._conversation.closing = True

    def push(self, value: object) -> None:
        """Collect a value, encoded as a reply."""
        self._conversation.end_batch_early()
        self._pushed.append(self._conversation.encode(value))

    def extend(self, seconds: float) -> None:
        """Do nothing: time is not limited here."""

    def take(self) -> bytes:
        """Return what was pushed since the last call."""
        pushed = b"".join(self._pushed)
        self._pushed.clear()
        return pushed
