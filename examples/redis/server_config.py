"""CONFIG: settings that all workers share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from application import SIZE_MB, app
from attrs import frozen
from db import Db
from layout import DATABASES
from settings import get_setting, set_settings
from transaction import Txn

from linepool import ClientError, Resp, Session
from linepool.protocols.resp import OK, Status
from linepool.pubsub.glob import matches

_UNITS = {
    "": 1, "b": 1, "k": 10**3, "kb": 2**10, "m": 10**6, "mb": 2**20, "g": 10**9, "gb": 2**30,
}  # fmt: skip
_BYTES = re.compile(r"(\d+)([a-z]{0,2})\Z", re.IGNORECASE)
_EVENTS = "g$lshzxetdn"
_ALL_EVENTS = "g$lshzxetd"
_WHERE = "KEm"


class _RefusedError(Exception):
    """A value is refused; the text says why."""


@frozen
class Setting:
    """A setting: what its values may be, and the one at first.

    Attributes:
        kind: ``flag``, ``number``, ...; see config_table.txt.
        rule: What else its values must keep to.
    """

    name: str
    kind: str
    rule: str
    default: str

    def checked(self, text: str) -> str:
        """Return a new value as it is stored; raises ``_RefusedError``."""
        if self.kind in ("number", "bytes"):
            return self._number(text)
        if self.kind == "flag" and text.lower() not in ("yes", "no"):
            raise _RefusedError("argument must be 'yes' or 'no'")
        choices = [self.rule] if self.kind == "only" else self.rule.split(",")
        if self.kind in ("one", "only") and text.lower() not in choices:
            raise _RefusedError(f"argument(s) must be one of the following: {', '.join(choices)}")
        if self.kind == "events":
            return _events(text)
        return text if self.kind == "text" else text.lower()

    def _number(self, text: str) -> str:
        if self.kind == "number":
            try:
                number = int(text) if re.fullmatch(r"-?\d{1,19}", text) else None
            except ValueError:
                number = None
            if number is None or not -(2**63) <= number < 2**63:
                raise _RefusedError("argument couldn't be parsed into an integer")
        else:
            match = _BYTES.match(text)
            if match is None or match[2].lower() not in _UNITS:
                raise _RefusedError("argument must be a memory value")
            number = int(match[1]) * _UNITS[match[2].lower()]
        low, high = map(int, self.rule.split(".."))
        if not low <= number <= high:
            raise _RefusedError(f"argument must be between {low} and {high} inclusive")
        return str(number)


def _read_table() -> Mapping[str, Setting]:
    table = {}
    for line in Path(__file__).with_name("config_table.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, kind, default = f"{line}  ".split(" ", 2)
            kind, _, rule = kind.partition(":")
            table[name] = Setting(name, kind, rule, default.strip())
    return table


SETTINGS = _read_table()


def setting(t: Txn, name: str) -> str:
    """Return a setting that may have been changed."""
    return get_setting(t, name, SETTINGS[name].default)


def _fixed(resp: Resp, session: Session) -> dict[str, str]:
    """Return the settings that follow from how the server was started."""
    host, _, port = session.listener.rpartition(":")
    is_unix = "/" in session.listener or not port.isdigit()
    return {
        "databases": str(DATABASES),
        "maxmemory": str(SIZE_MB * 2**20),
        "proto-max-bulk-len": str(resp.limits.max_body_bytes),
        "dir": os.environ.get("REDIS_DIR", ""),
        "port": "0" if is_unix else port,
        "bind": "" if is_unix else host.strip("[]"),
        "unixsocket": session.listener.removeprefix("unix:") if is_unix else "",
        "requirepass": os.environ.get("REDIS_PASSWORD", ""),
    }


@app.handler("CONFIG|GET", flags="admin")
def get_config(
    resp: Resp, session: Session, db: Db, pattern: bytes, *patterns: bytes
) -> dict[str, str]:
    """Return the settings whose names match a pattern."""
    fixed = _fixed(resp, session)
    wanted = [one.lower() for one in (pattern, *patterns)]
    found = {}
    with db.read() as t:
        for name, one in SETTINGS.items():
            if any(matches(word, name.encode()) for word in wanted):
                own = one.rule if one.kind == "alias" else name
                found[name] = fixed.get(name, setting(t, own))
    return found


@app.handler("CONFIG|SET", flags="admin")
def set_config(
    resp: Resp, session: Session, db: Db, setting: bytes, value: bytes, *more: bytes
) -> Status:
    """Change settings, for all workers."""
    if len(more) % 2:
        raise ClientError("syntax error" if more else "wrong number of arguments")
    words = (setting, value, *more)
    pairs = [
        (name.decode("utf-8", "replace").lower(), text.decode("utf-8", "surrogateescape"))
        for name, text in zip(words[::2], words[1::2], strict=True)
    ]
    changes = _checked(pairs, _fixed(resp, session))
    if changes:
        with db.write() as t:
            set_settings(t, changes)
    return OK


def _checked(pairs: Iterable[tuple[str, str]], fixed: Mapping[str, str]) -> dict[str, str]:
    """Return changes of settings as they are stored.

    Raises:
        ClientError: One of them cannot be made; the text says which.
    """
    changes: dict[str, str] = {}
    seen = set()
    for name, _ in pairs:
        if name not in SETTINGS:
            raise ClientError(f"Unknown option or number of arguments for CONFIG SET - '{name}'")
    for name, text in pairs:
        one = SETTINGS[name]
        try:
            if name in seen:
                raise _RefusedError("duplicate parameter")
            seen.add(name)
            if one.kind == "fixed":
                if text != fixed.get(name, one.default):
                    raise _RefusedError("can't set immutable config")
                continue
            own = one.rule if one.kind == "alias" else name
            changes[own] = SETTINGS[own].checked(text)
        except _RefusedError as error:
            raise ClientError(
                f"CONFIG SET failed (possibly related to argument '{name}') - {error}"
            ) from None
    return changes


def _events(text: str) -> str:
    """Return the classes of events that clients want to be notified of, in the order of Redis."""
    chosen = set(text.replace("A", _ALL_EVENTS))
    if not chosen <= set(_EVENTS + _WHERE):
        raise _RefusedError("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
    shown = "".join(one for one in _EVENTS if one in chosen)
    if chosen >= set(_ALL_EVENTS):
        shown = "A"
    return shown + "".join(one for one in _WHERE if one in chosen)


@app.handler("CONFIG|REWRITE", flags="admin")
def rewrite_config() -> Status:
    """Refuse: settings are kept in the store, and no file has them."""
    raise ClientError("The server is running without a config file")
