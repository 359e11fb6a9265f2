"""Commands about the server, as far as they mean something here."""

from __future__ import annotations

import time

from application import app
from db import HASH, LIST, SET, STRING, ZSET, Db, Header, whole

from linepool import ClientError, Resp
from linepool.protocols.resp import OK, Status
from linepool.protocols.resp.commands import config as known_config

# What only chooses how Redis lays a value out in memory; here, all values of a kind are kept alike.
_LAYOUT = ("hash-max-", "list-max-", "list-compress-", "set-max-", "zset-max-")
_ALREADY = {("save", b""), ("appendonly", b"no")}
_LARGE = 512  # elements, or
_LONG = 64  # bytes of one, from which on Redis uses its general form


@app.handler(flags="admin")
def config(resp: Resp, subcommand: str, *words: bytes) -> object:
    """Tell settings: CONFIG GET pattern ...; SET takes what changes nothing here."""
    if subcommand.upper() != "SET":
        return known_config(resp, subcommand, *words)
    if not words or len(words) % 2:
        raise ClientError("wrong number of arguments for 'config|set' command")
    for name, value in zip(words[::2], words[1::2], strict=True):
        setting = name.decode("latin-1").lower()
        is_so = (setting, value) in _ALREADY
        if not is_so and not setting.startswith(_LAYOUT):
            return known_config(resp, subcommand, *words)
    return OK


@app.handler("TIME", flags="fast")
def tell_time() -> list[str]:
    """Give the Unix time in seconds, and the microseconds."""
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return [str(seconds), str(micros)]


@app.handler("OBJECT", flags="readonly", keys=(2, 2, 1))
def object_(subcommand: str, key: bytes, db: Db) -> object:
    """Tell of a value: OBJECT ENCODING | REFCOUNT | IDLETIME key."""
    name = subcommand.upper()
    with db.read() as t:
        header = t.find(key)
        if name in ("ENCODING", "REFCOUNT", "IDLETIME") and header is None:
            return None
        if name == "REFCOUNT":
            return 1
        if name == "IDLETIME":
            return 0
        if name == "ENCODING" and header is not None:
            return _encoding(header)
    raise ClientError(f"unknown subcommand '{subcommand}'. Try OBJECT HELP.")


def _encoding(header: Header) -> str:
    """Return the name of the form that Redis would most likely have chosen."""
    if header.kind == STRING:
        if whole(header.value) is not None:
            return "int"
        return "embstr" if len(header.value) <= _LONG - 20 else "raw"
    small = header.count <= _LARGE
    return {
        LIST: "listpack" if small else "quicklist",
        SET: "listpack" if small else "hashtable",
        HASH: "listpack" if small else "hashtable",
        ZSET: "listpack" if small else "skiplist",
    }[header.kind]


@app.handler
def function(subcommand: str, *words: bytes) -> Status | list[bytes]:
    """Say that there are no functions: FUNCTION FLUSH | LIST."""
    if subcommand.upper() == "FLUSH":
        return OK
    if subcommand.upper() == "LIST":
        return []
    raise ClientError(f"unknown subcommand '{subcommand}'. Try FUNCTION HELP.")
