"""The subcommands of CLIENT that are about the connection itself; texts are those of Redis 7.0."""

from __future__ import annotations

import zlib
from typing import Any

from linepool.errors import ClientError
from linepool.protocols.base import Builtin
from linepool.protocols.resp.parser import OFF, ON, SKIP_NEXT, RespParser
from linepool.protocols.resp.values import OK, Status
from linepool.session import Reply

_BAD_NAME = "Client names cannot contain spaces, newlines or special characters."
_INT64_MASK = 2**63 - 1
_MODES = {b"ON": ON, b"OFF": OFF, b"SKIP": SKIP_NEXT}


class ClientId(int):
    """Annotate a parameter with it to get the connection's number, which no other one has.

    It is that of the socket in the kernel (SO_COOKIE), which the connection keeps in whichever process.
    """

    __slots__ = ()

    @classmethod
    def of(cls, conversation: Any) -> ClientId:
        """Return that of a conversation; without a socket, it is made from the session's id."""
        cookie = conversation.cookie & _INT64_MASK
        return cls(cookie or zlib.crc32(conversation.session.id.encode()) or 1)


def set_name(resp: RespParser, name: bytes) -> Status:
    """Give the connection a name."""
    resp.name = checked_name(name)
    return OK


def get_name(resp: RespParser) -> str | None:
    """Return the name of the connection."""
    return resp.name or None


def get_id(client_id: ClientId) -> int:
    """Return the number of the connection."""
    return int(client_id)


def set_info(attribute: bytes, value: bytes) -> Status:
    """Say which client library is used: LIB-NAME name or LIB-VER version."""
    check_info(attribute, value)
    return OK


def set_flag(on_or_off: bytes) -> Status:
    """Accept ON or OFF, which makes no difference here."""
    if on_or_off.upper() not in (b"ON", b"OFF"):
        raise ClientError("syntax error")
    return OK


def reply(resp: RespParser, mode: bytes) -> Status | Reply:
    """Choose whether replies are sent: ON, OFF, or SKIP for the next request."""
    if mode.upper() not in _MODES:
        raise ClientError("syntax error")
    wanted = _MODES[mode.upper()]
    if wanted != SKIP_NEXT or resp.mute != OFF:
        resp.mute = wanted
    return OK if wanted == ON else Reply(raw=b"")


CLIENT: tuple[Builtin, ...] = (
    (("CLIENT|SETNAME",), set_name),
    (("CLIENT|GETNAME",), get_name),
    (("CLIENT|ID",), get_id),
    (("CLIENT|SETINFO",), set_info),
    (("CLIENT|NO-EVICT", "CLIENT|NO-TOUCH"), set_flag),
    (("CLIENT|REPLY",), reply),
)


def checked_name(name: bytes) -> str:
    """Return a name for a connection as text; raises ClientError if it has blanks and the like."""
    if any(not 0x21 <= char <= 0x7E for char in name):
        raise ClientError(_BAD_NAME)
    return name.decode()


def check_info(attribute: bytes, value: bytes) -> str:
    """Return the name of an attribute of CLIENT SETINFO; raises ClientError if it cannot be set."""
    name = attribute.decode("latin-1").lower()
    if name not in ("lib-name", "lib-ver"):
        raise ClientError(f"Unrecognized option '{attribute.decode('latin-1')}'")
    if any(not 0x21 <= char <= 0x7E for char in value):
        raise ClientError(f"{name} cannot contain spaces, newlines or special characters.")
    return name
