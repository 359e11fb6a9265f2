"""The syntax of settings: from text, or from a value of the file, to the setting's value. Pure.

Each parser raises ValueError with what the value must be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from linepool.address import parse_address
from linepool.digits import is_whole
from linepool.settings import access
from linepool.settings.networks import parsed_networks

INHERIT = -1
"""A setting is left as it is in the process that starts the server; as text, ``inherit``."""

_MAX_SECONDS = 1e9
_NO_USER = 2**32 - 1  # (uid_t) -1
_TEXT: Mapping[str, Any] = {"type": "string"}
_TEXTS: Mapping[str, Any] = {"type": ["string", "array"], "items": _TEXT}
_BRIDGE = re.compile(
    r"rediss?://([^@/?#\s]*@)?([\w.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?(/[0-9]{0,4})?",
    re.ASCII,
)
_OCTAL: Mapping[str, Any] = {"type": "string", "pattern": "^(0o)?[0-7]{1,3}$"}


@frozen
class Syntax:
    """The parser of a setting; a call parses.

    Attributes:
        parse: From text, or a value of the file.
        schema: What a value in a file looks like: JSON Schema, draft 7.
    """

    parse: Callable[[object], Any]
    schema: Mapping[str, Any]

    def __call__(self, value: object) -> Any:
        """Return the setting's value.

        Raises:
            ValueError: The value is wrong; the text says what it must be.
        """
        return self.parse(value)

    @property
    def choices(self) -> Sequence[str]:
        """The words of which the value is one; empty: it is something else."""
        found: Sequence[str] = self.schema.get("enum", ())
        return found


def number(low: float, high: float, kind: Callable[[Any], Any], what: str) -> Syntax:
    """Return a parser of numbers from ``low`` to ``high``."""

    def parse(value: object) -> Any:
        try:
            parsed = kind(plain_number(value))
        except ValueError:
            raise ValueError(what) from None
        if isinstance(value, bool) or not low <= parsed <= high:
            most = f" and at most {exact(high)}" if high < math.inf else ""
            raise ValueError(f"{what}, at least {exact(low)}{most}")
        return parsed

    schema = {"type": "integer" if kind is int else "number", "minimum": low}
    return Syntax(parse, schema if high == math.inf else {**schema, "maximum": high})


def plain_number(value: object) -> str:
    """Return the text of a number, without what only Python takes: ``1_000``, blanks, other digits.

    Raises:
        ValueError: It has some of that.
    """
    text = str(value)
    if "_" in text or not text.isascii() or text.split() != [text]:
        raise ValueError
    return text


def exact(value: float) -> str:
    """Return a number as text, a whole one without a fraction."""
    return str(int(value) if value == int(value) else value)


def seconds(low: float = 0.0) -> Syntax:
    """Return a parser of a time in seconds."""
    return number(low, _MAX_SECONDS, float, "a number of seconds")


def whole(low: int, high: float = math.inf) -> Syntax:
    """Return a parser of whole numbers."""
    return number(low, high, int, "a whole number")


def one_of(*choices: str) -> Syntax:
    """Return a parser of one of some words."""

    def parse(value: object) -> str:
        if str(value).lower() in choices:
            return str(value).lower()
        raise ValueError(" or ".join(choices))

    return Syntax(parse, {"enum": list(choices)})


def _flag(value: object) -> bool:
    """Parse on or off."""
    if str(value).lower() in ("on", "true", "yes", "1"):
        return True
    if str(value).lower() in ("off", "false", "no", "0"):
        return False
    raise ValueError("on or off")


def texts(value: object) -> tuple[str, ...]:
    """Parse a list of strings, or one string of them."""
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError("a string or a list of strings")


def _paths(value: object) -> tuple[str, ...]:
    """Parse a list of paths, or one string of them, separated by commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if value.strip() else []
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise ValueError("a path or a list of paths")
    if any("\0" in path or not path for path in value):
        raise ValueError("paths, which are not empty and have no NUL in them")
    return tuple(value)


def _protocol_names(value: object) -> tuple[str, ...]:
    """Parse names of application protocols (RFC 7301, section 3.1)."""
    found = texts(value)
    if not all(0 < len(name.encode()) < 256 for name in found):
        raise ValueError("names of 1 to 255 bytes")
    return found


def _patterns(value: object) -> tuple[str, ...]:
    """Parse patterns of paths."""
    found = texts(value)
    if any("\0" in pattern or not pattern for pattern in found):
        raise ValueError("paths, which are not empty and have no NUL in them")
    return found


def _addresses(value: object) -> tuple[str, ...]:
    """Parse addresses to listen on."""
    found = texts(value)
    if not found:
        raise ValueError("at least one address")
    for address in found:
        parse_address(address)
        if found.count(address) > 1 and not address.endswith(":0"):
            raise ValueError(f"distinct addresses; {address} is given twice")
    return found


def _networks(value: object) -> tuple[str, ...]:
    """Parse networks."""
    return parsed_networks(texts(value))


def _text(value: object) -> str:
    """Parse a string."""
    if isinstance(value, str):
        return value
    raise ValueError("a string")


def _uids(value: object) -> tuple[int, ...]:
    """Parse the numbers of users."""
    words = texts(value) if isinstance(value, str) else value
    if isinstance(words, int):
        words = (words,)
    found = [str(word) for word in words] if isinstance(words, Sequence) else ["x"]
    if not all(is_whole(word) and int(word) < _NO_USER for word in found):
        raise ValueError("numbers of users, such as 0 1000 (those of a name: id -u NAME)")
    return tuple(map(int, found))


def _path(value: object) -> str:
    """Parse the path of a file or directory."""
    found = _text(value)
    if "\0" in found:
        raise ValueError("a path")
    return found


def _name(value: object) -> str:
    """Parse the name or the number of a user or a group."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ValueError("a name or a number")


def _control(value: object) -> str:
    """Parse the path of the control socket."""
    path = _text(value)
    if path.startswith("@") or "\0" in path:
        raise ValueError("a path; every local user may connect to an abstract socket")
    return path


def _http(value: object) -> str:
    """Parse where to serve HTTP."""
    return _place(value, "HOST:PORT, PORT, unix:/PATH or off", may_be_unix=True)


def _agent(value: object) -> str:
    """Parse where to answer agent-checks."""
    return _place(value, "HOST:PORT, PORT or off", may_be_unix=False)


def _bridge(value: object) -> str:
    """Parse the URL of a Valkey or Redis server; an empty text, false and none are off too."""
    if value is False or str(value).lower() in ("", "off", "false", "none"):
        return ""
    found = _BRIDGE.fullmatch(value) if isinstance(value, str) else None
    if not found or not 0 < int(found["port"] or 1) < 65536:
        raise ValueError(
            "redis://HOST:PORT/0, or rediss:// with TLS, USER:PASSWORD@ before HOST if needed, or off"
        )
    return found[0]


def without_password(text: str) -> str:
    """Return a URL without user and password; also one that is not valid."""
    login, sign, place = text.rpartition("@")
    scheme, slashes, _ = login.rpartition("://") if login.count("://") == 1 else ("", "", "")
    return f"{scheme}{slashes}***@{place}" if sign else text


def _place(value: object, what: str, *, may_be_unix: bool) -> str:
    """Parse where a helper serves; an empty text, false and none are off too."""
    if value is False or str(value).lower() in ("", "off", "false", "none"):
        return ""
    found = _text(str(value) if type(value) is int else value)
    try:
        address = parse_address(found)
    except ValueError:
        raise ValueError(what) from None
    is_file = bool(address.path) and may_be_unix and not address.path.startswith("@")
    if not (address.host or is_file):
        raise ValueError(what)
    return found


def _hosts(value: object) -> tuple[str, ...]:
    """Parse names of hosts, without ports."""
    found = tuple(texts(value))
    for name in found:
        if not name or not all(char.isalnum() or char in "-._" for char in name):
            raise ValueError("names of hosts without a port, such as metrics.example.org")
    return found


def _switched_path(value: object) -> str:
    """Parse a path, or ``off``; an empty text, false and none are off too."""
    if value is False or str(value).lower() in ("", "off", "false", "none"):
        return "off"
    return str(_path(value))


def _mode(value: object) -> int:
    """Parse the mode of a file."""
    return _octal(value, "a file mode in octal, such as 660")


def _umask(value: object) -> int:
    """Parse a mask of permissions."""
    return _octal(value, "a mask in octal, such as 027")


def _octal(value: object, what: str) -> int:
    try:
        # An integer is the mode itself; only a string is read as octal digits.
        parsed = value if isinstance(value, int) else int(plain_number(value), 8)
    except ValueError:
        parsed = -1
    if not 0 <= parsed <= 0o777:
        raise ValueError(what)
    return parsed


def or_inherit(syntax: Syntax) -> Syntax:
    """Return a parser that also knows the word ``inherit``."""

    def parse(value: object) -> Any:
        if value == INHERIT or str(value).lower() == "inherit":
            return INHERIT
        try:
            return syntax(value)
        except ValueError as error:
            raise ValueError(f"inherit, or {error}") from None

    return Syntax(parse, {"anyOf": [{"const": "inherit"}, syntax.schema]})


uids = Syntax(
    _uids,
    {"type": ["string", "integer", "array"], "items": {"type": "integer", "minimum": 0}},
)
flag = Syntax(_flag, {"type": "boolean"})
paths = Syntax(_paths, _TEXTS)
patterns = Syntax(_patterns, _TEXTS)
protocol_names = Syntax(_protocol_names, _TEXTS)
addresses = Syntax(_addresses, _TEXTS)
networks = Syntax(_networks, _TEXTS)
text = Syntax(_text, _TEXT)
path = Syntax(_path, _TEXT)
name = Syntax(_name, {"type": ["string", "integer"]})
http = Syntax(_http, {"type": ["string", "integer", "boolean"]})
agent = Syntax(_agent, {"type": ["string", "integer", "boolean"]})
bridge = Syntax(_bridge, {"type": ["string", "boolean"]})
hosts = Syntax(_hosts, _TEXTS)
control = Syntax(_control, _TEXT)
switched_path = Syntax(_switched_path, {"type": ["string", "boolean"]})
access_format = Syntax(access.access_format, _TEXT)
mode = Syntax(_mode, _OCTAL)
umask = Syntax(_umask, _OCTAL)
