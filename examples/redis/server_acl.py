"""ACL: the only user is ``default``, who may use all commands; REDIS_PASSWORD is that user's password."""

from __future__ import annotations

import hashlib
import os
import secrets
from typing import Any

from application import app

from linepool import ClientError, Resp, Session
from linepool.protocols.resp import OK, Status
from linepool.protocols.resp.describing import find, in_category, names_of
from linepool.protocols.resp.facts import CATEGORIES

_USER = "default"
_DIGITS_BITS = 4  # of a hexadecimal digit


def _digest() -> str:
    """Return the hash of the password; "": there is none."""
    password = os.environ.get("REDIS_PASSWORD", "")
    return hashlib.sha256(password.encode()).hexdigest() if password else ""


@app.handler("ACL|WHOAMI")
def whoami(session: Session) -> str:
    """Return the user of the connection."""
    return session.user or _USER


@app.handler("ACL|USERS")
def users() -> list[str]:
    """List the users."""
    return [_USER]


@app.handler("ACL|LIST")
def list_users() -> list[str]:
    """List the users, with what they may do."""
    digest = _digest()
    return [f"user {_USER} on {f'#{digest}' if digest else 'nopass'} ~* &* +@all"]


@app.handler("ACL|GETUSER")
def get_user(username: str) -> dict[str, Any] | None:
    """Return what a user may do."""
    if username != _USER:
        return None
    digest = _digest()
    return {
        "flags": ["on"] if digest else ["on", "nopass"],
        "passwords": [digest] if digest else [],
        "commands": "+@all",
        "keys": "~*",
        "channels": "&*",
        "selectors": [],
    }


@app.handler("ACL|CAT")
def categories(resp: Resp, category: str | None = None) -> list[str]:
    """List the categories of commands, or the commands of one."""
    if category is None:
        return list(CATEGORIES)
    if category.lower() not in CATEGORIES:
        raise ClientError(f"Unknown category '{category}'")
    names = (
        name
        for top in names_of(resp)
        for name in (top, *(f"{top}|{sub}" for sub in resp.containers.get(top.encode(), ())))
    )
    return in_category(resp, category, names)


@app.handler("ACL|DRYRUN")
def try_command(resp: Resp, username: str, command: bytes, *words: bytes) -> Status:
    """Say whether a user may run a command."""
    if username != _USER:
        raise ClientError(f"User '{username}' not found")
    if find(resp, [command, *words]) is None:
        raise ClientError(f"Command '{command.decode('utf-8', 'replace')}' not found")
    return OK


@app.handler("ACL|GENPASS")
def make_password(bits: int = 256) -> str:
    """Return a random password of some bits."""
    if not 0 < bits <= 4096:
        raise ClientError(
            "ACL GENPASS argument must be the number of bits for the output password, a positive"
            " number up to 4096"
        )
    digits = -(-bits // _DIGITS_BITS)
    return secrets.token_hex(-(-digits // 2))[:digits]


@app.handler("ACL|LOG")
def list_refusals(*words: str) -> list[object] | Status:
    """List what users were refused; that is not kept."""
    return OK if [word.upper() for word in words] == ["RESET"] else []


@app.handler("ACL|SAVE", "ACL|LOAD")
def use_file() -> None:
    """Refuse, for there is no file of users."""
    raise ClientError("This server is not configured to use an ACL file.")
