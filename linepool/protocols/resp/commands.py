"""The built-in commands of a RESP server, which clients need to connect; texts are those of Redis 7.0."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from linepool.errors import ClientError, UsageError
from linepool.protocols.base import Builtin, Command, Parameter
from linepool.protocols.resp.parser import RespParser
from linepool.protocols.resp.pubsub import PUBSUB, unsubscribe_all
from linepool.protocols.resp.values import OK, Status
from linepool.session import Connection, Reply, Session

Authenticate = Callable[[str, str], bool]
"""From a user and a password to whether they are right."""

BEFORE_AUTH = {b"AUTH", b"HELLO", b"QUIT", b"RESET"}
"""The commands that a client may send before it has authenticated."""
_UNLIMITED = 1 << 30
_NOAUTH = (
    "HELLO must be called with the client already authenticated, otherwise the HELLO AUTH"
    " <user> <pass> option can be used to authenticate the client and select the RESP protocol"
    " version at the same time"
)
_AUTH_NOT_ENABLED = (
    "AUTH <password> called without any password configured for the default user."
    " Are you sure your configuration is correct?"
)
_BAD_NAME = "Client names cannot contain spaces, newlines or special characters."


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


def auth(resp: RespParser, session: Session, *words: str) -> Status:
    """Authenticate: AUTH [user] password."""
    if not 1 <= len(words) <= 2:
        raise UsageError("", "missing") if not words else UsageError("syntax error", "option")
    if resp.authenticate is None and len(words) == 1:
        raise ClientError(_AUTH_NOT_ENABLED)
    user, password = words if len(words) == 2 else ("default", words[0])
    _authenticate(resp, session, user, password)
    return OK


def hello(resp: RespParser, session: Session, *words: bytes) -> dict[str, Any]:
    """Choose the version of the protocol: HELLO [2|3 [AUTH user password] [SETNAME name]]."""
    version = resp.version
    if words:
        if not words[0].isdigit():
            raise ClientError("Protocol version is not an integer or out of range")
        version = int(words[0])
        if version not in (2, 3):
            raise ClientError("unsupported protocol version", code="NOPROTO")
    at = 1  # after the version
    name: str | None = None
    while at < len(words):
        option = words[at].upper()
        if option == b"AUTH" and len(words) > at + 2:
            _authenticate(resp, session, words[at + 1].decode(), words[at + 2].decode())
            at += 3
        elif option == b"SETNAME" and len(words) > at + 1:
            name = _checked_name(words[at + 1])
            at += 2
        else:
            raise ClientError(f"Syntax error in HELLO option '{words[at].decode('latin-1')}'")
    if resp.must_authenticate:
        raise ClientError(_NOAUTH, code="NOAUTH")
    if name is not None:
        resp.name = name
    resp.version = version
    return {
        "server": "redis",
        "version": resp.redis_version,
        "proto": version,
        "id": client_id(session),
        "mode": "standalone",
        "role": "master",
        "modules": [],
    }


def client(resp: RespParser, session: Session, subcommand: str, *words: bytes) -> Any:
    """Get or set facts about the connection: CLIENT SETNAME | GETNAME | ID | SETINFO ..."""
    name = subcommand.upper()
    word_count = {"SETNAME": 1, "SETINFO": 2, "NO-EVICT": 1, "NO-TOUCH": 1}.get(name, 0)
    if name not in _CLIENT:
        raise ClientError(f"unknown subcommand '{subcommand}'. Try CLIENT HELP.")
    if len(words) != word_count:
        raise ClientError(f"wrong number of arguments for 'client|{name.lower()}' command")
    return _CLIENT[name](resp, session, words)


def _set_name(resp: RespParser, _session: Session, words: tuple[bytes, ...]) -> Status:
    resp.name = _checked_name(words[0])
    return OK


def _set_info(_resp: RespParser, _session: Session, words: tuple[bytes, ...]) -> Status:
    if words[0].upper() not in (b"LIB-NAME", b"LIB-VER"):
        raise ClientError(f"Unrecognized option '{words[0].decode('latin-1')}'")
    return OK


def _set_flag(_resp: RespParser, _session: Session, words: tuple[bytes, ...]) -> Status:
    """Accept NO-EVICT and NO-TOUCH, which have no meaning here."""
    if words[0].upper() not in (b"ON", b"OFF"):
        raise ClientError("syntax error")
    return OK


_CLIENT: Mapping[str, Callable[[RespParser, Session, tuple[bytes, ...]], Any]] = {
    "SETNAME": _set_name,
    "GETNAME": lambda resp, _session, _words: resp.name or None,
    "ID": lambda _resp, session, _words: client_id(session),
    "SETINFO": _set_info,
    "NO-EVICT": _set_flag,
    "NO-TOUCH": _set_flag,
}


def command(resp: RespParser, subcommand: str = "", *words: str) -> Any:
    """Describe the commands: COMMAND [COUNT | LIST | INFO name ... | DOCS name ...]."""
    table = {entry.names[0]: entry for entry in resp.commands.values()}
    name = subcommand.upper()
    chosen = {word.upper(): resp.commands.get(word.upper().encode()) for word in words}
    if not name:
        return [_info(entry) for entry in table.values()]
    if name == "COUNT" and not words:
        return len(table)
    if name == "LIST" and not words:
        return [entry.names[0].lower() for entry in table.values()]
    if name == "INFO":
        entries = chosen if words else table
        return [_info(entry) if entry else None for entry in entries.values()]
    if name == "DOCS":
        entries = chosen if words else table
        return {key.lower(): _docs(entry) for key, entry in entries.items() if entry}
    if name == "GETKEYS" and words:
        return _keys_in(chosen[words[0].upper()], words)
    if name in ("COUNT", "LIST", "GETKEYS"):
        raise ClientError(f"wrong number of arguments for 'command|{name.lower()}' command")
    raise ClientError(f"unknown subcommand '{subcommand}'. Try COMMAND HELP.")


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
    (("CLIENT",), client),
    (("COMMAND",), command),
    (("SELECT",), select),
    (("RESET",), reset),
    (("QUIT",), quit_),
    *PUBSUB,
)
TRANSACTIONS: tuple[Builtin, ...] = ((("MULTI",), multi), (("DISCARD",), discard))


def arity(entry: Command) -> tuple[int, int]:
    """Return the least and the largest number of words that may follow a command."""
    least = sum(one.required for one in entry.parameters)
    if any(one.kind in ("many", "option", "flag") for one in entry.parameters):
        return least, _UNLIMITED
    return least, len(entry.parameters)


def _info(entry: Command) -> list[Any]:
    """Return the ten fields of COMMAND INFO in Redis 7."""
    least, most = arity(entry)
    count = least + 1 if least == most else -(least + 1)  # with the command's name
    flags = [Status(flag) for flag in str(entry.options.get("flags", "")).split()]
    first, last, step = _keys(entry)
    return [
        entry.names[0].lower(),
        count,
        dict.fromkeys(flags).keys(),
        first,
        last,
        step,
        set(),
        [],
        [],
        [],
    ]


def _keys(entry: Command) -> tuple[int, int, int]:
    """Return the positions of the keys among a command's words: the first, the last, the step."""
    if "keys" in entry.options:
        first, last, step = entry.options["keys"]
        return first, last, step
    names = {one.name: (position, one.kind) for position, one in enumerate(entry.parameters, 1)}
    position, _ = names.get("key", names.get("keys", (0, "")))
    if not position:
        return 0, 0, 0
    return position, -1 if names.get("keys", (0, ""))[1] == "many" else position, 1


def _keys_in(entry: Command | None, words: tuple[str, ...]) -> list[str]:
    if entry is None:
        raise ClientError("Invalid command specified")
    first, last, step = _keys(entry)
    if not first:
        raise ClientError("The command has no key arguments")
    return list(words[first : last + 1 if last > 0 else None : step])


def _docs(entry: Command) -> dict[str, Any]:
    docs: dict[str, Any] = {"summary": entry.doc.partition("\n")[0], "group": "generic"}
    arguments = [_argument(one) for one in entry.parameters]
    return {**docs, "arguments": arguments} if arguments else docs


def _argument(one: Parameter) -> dict[str, Any]:
    """Return the description of one parameter in COMMAND DOCS."""
    kind = {"int": "integer", "float": "double"}.get(one.shown.split("(")[0], "string")
    if one.name in ("key", "keys"):
        kind = "key"
    argument: dict[str, Any] = {"name": one.name, "type": kind}
    if one.kind == "flag":
        argument["type"] = "pure-token"
    if one.kind in ("option", "flag"):
        argument["token"] = one.name.upper()
    flags = [Status("optional")] * (not one.required)
    flags += [Status("multiple")] * (one.kind == "many")
    if flags:
        argument["flags"] = flags
    return argument


def _checked_name(name: bytes) -> str:
    if any(not 0x21 <= char <= 0x7E for char in name):
        raise ClientError(_BAD_NAME)
    return name.decode()


def _authenticate(resp: RespParser, session: Session, user: str, password: str) -> None:
    check = resp.authenticate
    right = user == "default" if check is None else check(user, password)
    if not right:
        raise ClientError("invalid username-password pair or user is disabled.", code="WRONGPASS")
    resp.authenticated = True
    session.user = user


def client_id(session: Session) -> int:
    """Return a number for a connection, made from its id, which is a word."""
    return zlib.crc32(session.id.encode()) or 1
