"""The scripts that the server knows, by their SHA1, in a table that all workers share."""

from __future__ import annotations

import hashlib

from attrs import frozen
from transaction import Txn

from linepool import ClientError
from linepool.protocols.resp.parser import split

_MOST_EVALUATED = 1000  # scripts; with more, those that only EVAL has brought are forgotten
_LOADED, _EVALUATED = b"L", b"E"
_FLAGS = {"no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"}


@frozen
class Script:
    """A script.

    Attributes:
        sha: Its SHA1, in hexadecimal.
        code: Without the first line, if that is a shebang.
        flags: Those of the shebang; None: the script has none.
    """

    sha: str
    code: bytes
    flags: frozenset[str] | None


def sha_of(source: bytes) -> str:
    """Return the SHA1 by which clients call a script."""
    return hashlib.sha1(source).hexdigest()  # noqa: S324 - as Redis does


def parsed(source: bytes, sha: str) -> Script:
    """Return a script of its source.

    Raises:
        ClientError: The shebang is wrong.
    """
    if not source.startswith(b"#!"):
        return Script(sha, source, None)
    line, newline, code = source.partition(b"\n")
    if not newline:
        raise ClientError("Invalid script shebang")
    engine, *options = split(line) or [b""]
    if not engine:
        raise ClientError("Invalid engine in script shebang")
    if engine != b"#!lua":
        raise ClientError(f"Unexpected engine in script shebang: {_shown(engine)}")
    flags: set[str] = set()
    for option in options:
        name, equals, value = option.partition(b"=")
        if name != b"flags" or not equals:
            raise ClientError(f"Unknown lua shebang option: {_shown(option)}")
        for flag in value.split(b",") if value else ():
            if _shown(flag) not in _FLAGS:
                raise ClientError(f"Unexpected flag in script shebang: {_shown(flag)}")
            flags.add(_shown(flag))
    return Script(sha, newline + code, frozenset(flags))


def known(t: Txn, sha: str) -> bool:
    """Whether the server knows a script."""
    raw, table = t.scripts(write=False)
    return raw.get(sha.encode(), db=table) is not None


def source(t: Txn, sha: str) -> bytes | None:
    """Return the source of a script that the server knows, or None."""
    raw, table = t.scripts(write=False)
    blob = raw.get(sha.encode(), db=table)
    return None if blob is None else bytes(blob[1:])


def add(t: Txn, sha: str, source: bytes, *, is_loaded: bool) -> None:
    """Have the server know a script.

    Args:
        t: A transaction that can write.
        sha: Its SHA1.
        source: What the client has sent.
        is_loaded: By SCRIPT LOAD, so it is kept until SCRIPT FLUSH.
    """
    raw, table = t.scripts(write=True)
    if not is_loaded and count(t) >= _MOST_EVALUATED:
        with raw.cursor(table) as cursor:
            more = cursor.first()
            while more:
                is_kept = bytes(cursor.value()[:1]) == _LOADED
                more = cursor.next() if is_kept else cursor.delete()
    raw.put(sha.encode(), (_LOADED if is_loaded else _EVALUATED) + source, db=table)


def count(t: Txn) -> int:
    """Return the number of scripts that the server knows."""
    raw, table = t.scripts(write=False)
    return int(raw.stat(table)["entries"])


def forget(t: Txn) -> None:
    """Forget all scripts."""
    raw, table = t.scripts(write=True)
    raw.drop(table, delete=False)


def _shown(word: bytes) -> str:
    return word.decode("utf-8", "replace")
