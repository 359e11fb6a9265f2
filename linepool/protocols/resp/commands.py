"""The built-in commands of a RESP server, which clients need to connect; texts are those of Redis 7.0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from linepool.errors import ClientError, UsageError
from linepool.login import Login
from linepool.protocols.base import Builtin
from linepool.protocols.resp.clients import CLIENT, ClientId, checked_name
from linepool.protocols.resp.describing import DESCRIBING
from linepool.protocols.resp.parser import RespParser, parse_int
from linepool.protocols.resp.pubsub import PUBSUB, unsubscribe_all
from linepool.protocols.resp.values import OK, Status
from linepool.session import Connection, Reply, Session

Authenticate = Callable[[str, str], bool]
"""From a user and a password to whether they are right."""

BEFORE_AUTH = frozenset({"AUTH", "HELLO", "QUIT", "RESET"})
"""The commands that a client may send before it has authenticated."""
_NOAUTH = (
    "HELLO must be called with the client already authenticated, otherwise the HELLO AUTH"
    " <user> <pass> option can be used to authenticate the client and select the RESP protocol"
    " version at the same time"
)
_AUTH_NOT_ENABLED = (
    "AUTH <password> called without any password configured for the default user."
    " Are you sure your configuration is correct?"
)


def ping(resp: RespParser, message: bytes | None = None) -> Status | bytes | list[bytes]:
    """Return PONG, or the message."""
    if resp.subscribed and resp.version == 2:
        return [b"pong", message or b""]
    return Status("PONG") if message is None else message


def echo(message: bytes) -> bytes:
    """Return the message."""
    return message


def quit_(*_ignored: bytes) -> Reply:
    """Close the connection."""
    return Reply(OK, close=True)


def reset(resp: RespParser, session: Session, connection: Connection) -> Status:
    """Return to the state of a new connection."""
    unsubscribe_all(connection, resp)
    resp.reset()
    session.user = None
    return Status("RESET")


def select(index: int) -> Status:
    """Choose the database; the only one is 0."""
    if index != 0:
        raise ClientError("DB index is out of range")
    return OK


def auth(login: Login, session: Session, *words: str) -> Status:
    """Authenticate: AUTH [user] password."""
    if not 1 <= len(words) <= 2:
        raise UsageError("", "missing") if not words else UsageError("syntax error", "option")
    if not login.is_required and len(words) == 1:
        raise ClientError(_AUTH_NOT_ENABLED)
    user, password = words if len(words) == 2 else ("default", words[0])
    _authenticate(login, session, user, password)
    return OK


def hello(
    resp: RespParser, login: Login, session: Session, client_id: ClientId, *words: bytes
) -> dict[str, Any]:
    """Choose the version of the protocol: HELLO [2|3 [AUTH user password] [SETNAME name]]."""
    version = resp.version
    if words:
        number = parse_int(words[0])
        if number is None:
            raise ClientError("Protocol version is not an integer or out of range")
        version = number
        if version not in (2, 3):
            raise ClientError("unsupported protocol version", code="NOPROTO")
    at = 1  # after the version
    name: str | None = None
    while at < len(words):
        option = words[at].upper()
        if option == b"AUTH" and len(words) > at + 2:
            user, password = (word.decode("utf-8", "replace") for word in words[at + 1 : at + 3])
            _authenticate(login, session, user, password)
            at += 3
        elif option == b"SETNAME" and len(words) > at + 1:
            name = checked_name(words[at + 1])
            at += 2
        else:
            raise ClientError(f"Syntax error in HELLO option '{words[at].decode('latin-1')}'")
    if login.is_required and session.user is None:
        raise ClientError(_NOAUTH, code="NOAUTH")
    if name is not None:
        resp.name = name
    resp.version = version
    return {
        "server": "redis",
        "version": resp.redis_version,
        "proto": version,
        "id": int(client_id),
        "mode": "standalone",
        "role": "master",
        "modules": [],
    }


def multi(resp: RespParser) -> Status:
    """Queue the commands that follow, until EXEC."""
    resp.queue = []
    resp.queue_failed = False
    return OK


def discard(resp: RespParser) -> Status:
    """Drop the commands queued since MULTI."""
    resp.queue = None
    resp.queue_failed = False
    return OK


BUILTINS: tuple[Builtin, ...] = (
    (("PING",), ping),
    (("ECHO",), echo),
    (("HELLO",), hello),
    (("AUTH",), auth),
    (("SELECT",), select),
    (("RESET",), reset),
    (("QUIT",), quit_),
    *CLIENT,
    *DESCRIBING,
    *PUBSUB,
)
LOGIN: tuple[Builtin, ...] = ((("AUTH",), auth), (("HELLO",), hello))
TRANSACTIONS: tuple[Builtin, ...] = ((("MULTI",), multi), (("DISCARD",), discard))


def _authenticate(login: Login, session: Session, user: str, password: str) -> None:
    if login.is_required:
        login(user, password)
    elif user == "default":
        session.user = user
    else:
        raise wrong_password()


def wrong_password() -> ClientError:
    """Return the error for a log-in with a wrong password."""
    return ClientError("invalid username-password pair or user is disabled.", code="WRONGPASS")
