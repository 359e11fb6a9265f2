"""Commands about the server. Much of what they report is invented, because clients ask for it."""

from __future__ import annotations

import time

from application import app
from db import Db
from layout import HASH, LIST, SET, STRING, ZSET, Header, parse_int

from linepool import ClientError, Resp, Session
from linepool.protocols.resp import OK, Status, Verbatim
from linepool.protocols.resp.commands import client as set_up_client
from linepool.protocols.resp.commands import client_id
from linepool.pubsub.glob import matches

# Settings that choose how Redis lays out a value in memory; here, all values of a kind are alike.
_LAYOUT = ("hash-max-", "list-max-", "list-compress-", "set-max-", "zset-max-")
_CONFIG = {"save": "", "appendonly": "no", "databases": "1"}
_MAX_COMPACT_ELEMENTS = 512  # beyond them, Redis uses a collection's general form
_MAX_EMBEDDED_BYTES = 44  # beyond them, Redis allocates a string on its own


@app.handler(flags="admin")
def config(resp: Resp, subcommand: str, *words: bytes) -> object:
    """Get settings: CONFIG GET pattern ...; CONFIG SET accepts only what has no effect here."""
    name = subcommand.upper()
    if name == "GET" and words:
        settings = {**_CONFIG, "proto-max-bulk-len": str(resp.limits.max_body_bytes)}
        return {
            setting: value
            for setting, value in settings.items()
            if any(matches(word.lower(), setting.encode()) for word in words)
        }
    if name == "SET" and words and len(words) % 2 == 0:
        return _set_config(list(zip(words[::2], words[1::2], strict=True)))
    if name == "RESETSTAT" and not words:
        return OK
    if name in ("GET", "SET") or (name == "REWRITE" and not words):
        raise ClientError(f"wrong number of arguments for 'config|{name.lower()}' command")
    raise ClientError(f"unknown subcommand '{subcommand}'. Try CONFIG HELP.")


def _set_config(settings: list[tuple[bytes, bytes]]) -> Status:
    for word, value in settings:
        setting = word.decode("latin-1").lower()
        is_set_already = setting in ("save", "appendonly") and value == _CONFIG[setting].encode()
        if not is_set_already and not setting.startswith(_LAYOUT):
            raise ClientError(
                "CONFIG SET is not served; settings belong to the server's command line"
            )
    return OK


@app.handler
def info(resp: Resp, *sections: str) -> Verbatim:
    """Describe the server."""
    wanted = {section.lower() for section in sections} or {"default"}
    if wanted & {"default", "all", "everything", "server"}:
        version = f"redis_version:{resp.redis_version}"
        return Verbatim(f"# Server\r\n{version}\r\nredis_mode:standalone\r\n")
    return Verbatim("")


@app.handler
def client(resp: Resp, session: Session, subcommand: str, *words: bytes) -> object:
    """Get or set facts about the connection: CLIENT INFO | LIST | SETNAME | GETNAME | ID ..."""
    name = subcommand.upper()
    # LIST too shows this connection alone: no worker knows those of the others.
    if name == "LIST" or (name == "INFO" and not words):
        queued = -1 if resp.queue is None else len(resp.queue)
        return Verbatim(
            f"id={client_id(session)} addr={session.peer} laddr={session.listener}"
            f" name={resp.name} db=0 multi={queued} resp={resp.version}"
            f" user={session.user or 'default'}\n"
        )
    if name == "INFO":
        raise ClientError("wrong number of arguments for 'client|info' command")
    return set_up_client(resp, session, subcommand, *words)


@app.handler("TIME", flags="fast")
def tell_time() -> list[str]:
    """Return the Unix time: seconds and microseconds."""
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return [str(seconds), str(micros)]


@app.handler("OBJECT", flags="readonly", keys=(2, 2, 1))
def object_(subcommand: str, key: bytes, db: Db) -> object:
    """Describe a value: OBJECT ENCODING | REFCOUNT | IDLETIME key."""
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
        if parse_int(header.value) is not None:
            return "int"
        return "embstr" if len(header.value) <= _MAX_EMBEDDED_BYTES else "raw"
    small = header.count <= _MAX_COMPACT_ELEMENTS
    return {
        LIST: "listpack" if small else "quicklist",
        SET: "listpack" if small else "hashtable",
        HASH: "listpack" if small else "hashtable",
        ZSET: "listpack" if small else "skiplist",
    }[header.kind]


@app.handler
def function(subcommand: str, *words: bytes) -> Status | list[bytes]:
    """Report that there are no functions: FUNCTION FLUSH | LIST."""
    if subcommand.upper() == "FLUSH":
        return OK
    if subcommand.upper() == "LIST":
        return []
    raise ClientError(f"unknown subcommand '{subcommand}'. Try FUNCTION HELP.")
