"""Values between commands and scripts, as Redis converts them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

from linepool import ClientError, ReplyError
from linepool.protocols.resp import NullArray, PerVersion, Push, Status, Verbatim
from linepool.protocols.resp.values import encode_error, float_text

_INT64 = range(-(2**63), 2**63)
_SHORT_INTS = range(-(10**17), 10**17)  # "%.17g" writes them with all their digits
# The tags of the pairs in a list that ``sandbox.lua`` makes of a table.
_NIL, _ERR, _OK, _DOUBLE, _BIG, _VERBATIM, _MAP, _SET, _ARRAY = range(4, 13)
_NUMBER, _BOOL = 2, 3
_NOT_WORDS = "ERR Lua redis lib command arguments must be strings or integers"


class ScriptError(Exception):
    """An error that a function raises in a script, which may catch it.

    Attributes:
        text: It begins with the error's code.
    """

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self.text = text.encode() if isinstance(text, str) else text


def words_of(values: tuple[Any, ...]) -> list[bytes]:
    """Return the words of a command that a script calls.

    Raises:
        ScriptError: There are none, or one is neither a string nor a number.
    """
    if not values:
        raise ScriptError("ERR Please specify at least one argument for this redis lib call")
    words = []
    for value in values:
        if type(value) is bytes:
            words.append(value)
        elif type(value) is int and value in _SHORT_INTS:
            words.append(b"%d" % value)
        elif type(value) is int or type(value) is float:
            words.append(b"%.17g" % value)
        else:
            raise ScriptError(_NOT_WORDS)
    return words


def error_text(error: ReplyError) -> bytes:
    """Return an error reply as scripts have it: its code and its text."""
    return encode_error(error)[1:-2]


def to_error(text: bytes) -> ClientError:
    """Return the error reply of a script's error."""
    code, _, rest = text.strip(b"\r\n").decode("utf-8", "replace").partition(" ")
    return ClientError(rest, code=code)


class ToLua:
    """Makes Lua's values of what commands reply.

    Args:
        table: Makes a Lua table of a list or of a dict.

    Attributes:
        version: Of RESP, 2 or 3: the form of the values.
        size_bytes: The length of all strings so far.
    """

    def __init__(self, table: Callable[[Any], Any]) -> None:
        self._table = table
        self.version = 2
        self.size_bytes = 0

    def __call__(self, value: Any) -> Any:
        """Return Lua's form of a value.

        Raises:
            TypeError: RESP has no form for such a value.
        """
        if type(value) is bytes:
            self.size_bytes += len(value) + 32
            return value
        if type(value) is int and value in _INT64:
            return value
        if value is None or isinstance(value, NullArray):
            return None if self.version == 3 else False
        if isinstance(value, Status):
            return self._table({b"ok": self(value.encode())})
        if isinstance(value, str):
            return self(value.encode())
        if isinstance(value, (memoryview, bytearray)):
            return self(bytes(value))
        if isinstance(value, (list, tuple)):
            self.size_bytes += 16 * len(value)
            return self._table([self(item) for item in value])
        return self._other(value)

    def _other(self, value: Any) -> Any:
        """Return Lua's form of a value whose form depends on the version."""
        is_new = self.version == 3
        if isinstance(value, bool):
            return value if is_new else int(value)
        if isinstance(value, float):
            return self._table({b"double": value}) if is_new else self(float_text(value))
        if isinstance(value, int):
            text = self(b"%d" % value)
            return self._table({b"big_number": text}) if is_new else text
        if isinstance(value, Verbatim):
            return self._verbatim(value) if is_new else self(value.text.encode())
        if isinstance(value, ReplyError):
            return self._table({b"err": self(error_text(value))})
        return self._collection(value)

    def _collection(self, value: Any) -> Any:
        is_new = self.version == 3
        if isinstance(value, Mapping):
            if not is_new:
                return self([part for pair in value.items() for part in pair])
            pairs = {self(key): self(item) for key, item in value.items()}
            return self._table({b"map": self._table(pairs)})
        if isinstance(value, Set) and is_new:
            return self._table({b"set": self._table({self(item): True for item in value})})
        if isinstance(value, PerVersion):
            return self(value.resp3 if is_new else value.resp2)
        if isinstance(value, Push):
            return self(value.items)
        if isinstance(value, Iterable):
            return self(list(value))
        raise TypeError(f"a script cannot be given a {type(value).__name__}")

    def _verbatim(self, value: Verbatim) -> Any:
        text = self(value.text.encode())
        parts = {b"string": text, b"format": value.format.encode()[:3].ljust(3)}
        return self._table({b"verbatim_string": self._table(parts)})


def from_number(value: float) -> int:
    """Return a number of Lua's as Redis replies it: truncated, to 64 bits."""
    if not -(2.0**63) <= value < 2.0**63:
        return -(2**63)  # not a number too
    return int(value)


def from_lua(value: Any, version: int) -> Any:
    """Return what a script has returned, if it is not a table, as a value for RESP.

    Args:
        value: The value.
        version: That of RESP which the script has chosen.
    """
    if isinstance(value, bool):
        if version == 3:
            return value
        return 1 if value else None
    if isinstance(value, (int, float)):
        return from_number(value)
    return value


def from_flat(pairs: Iterator[Any], version: int) -> Any:
    """Return a table that a script has returned as a value for RESP.

    Args:
        pairs: Its tags and values, as ``sandbox.lua`` lists them.
        version: That of RESP which the script has chosen.
    """
    tag, value = next(pairs), next(pairs)
    if tag <= _BOOL:
        return from_lua(value, version)
    if tag in (_MAP, _SET, _ARRAY):
        count = 2 * value if tag == _MAP else value
        items = [from_flat(pairs, version) for _ in range(count)]
        if tag == _ARRAY:
            return items
        return Pairs(items) if tag == _MAP else Members(items)
    return _SCALARS[tag](value)


class Pairs(Mapping[Any, Any]):
    """A map of RESP whose keys may be any values, in the order of a list of keys and values."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def items(self) -> Any:
        """Return the pairs."""
        return list(zip(self._items[::2], self._items[1::2], strict=True))

    def __getitem__(self, key: Any) -> Any:
        return dict(self.items())[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items[::2])

    def __len__(self) -> int:
        return len(self._items) // 2


class Members(Set[Any]):
    """A set of RESP whose members may be any values."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def _big_number(text: bytes) -> int | bytes:
    if text.removeprefix(b"-").isdigit() and int(text) not in _INT64:
        return int(text)
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


def _verbatim(text: bytes) -> Verbatim:
    return Verbatim(text[3:].decode("utf-8", "replace"), text[:3].decode("latin-1"))


_SCALARS: dict[int, Callable[[Any], Any]] = {
    _NIL: lambda _value: None,
    _ERR: to_error,
    _OK: lambda text: Status(text.decode("utf-8", "replace")),
    _DOUBLE: float,
    _BIG: _big_number,
    _VERBATIM: _verbatim,
}
