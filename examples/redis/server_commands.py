"""Commands about the server as a whole: its role, its store, its end."""

from __future__ import annotations

import os
import random
import signal
import time

import server_absent
import server_acl
import server_debug
import server_logs
import subscriptions
from application import app
from db import Db
from key_store import Store
from server_figures import started_at
from transaction import Txn

from linepool import ClientError, Reply, Resp
from linepool.protocols.resp import OK, Status, Verbatim

# Each module registers its commands when it is imported.
MORE_COMMANDS = (server_absent, server_acl, server_debug, server_logs, subscriptions)
_SAVED = b"saved"
_STARS = ".:*+'"


@app.handler("TIME")
def tell_time() -> list[str]:
    """Return the Unix time: seconds and microseconds."""
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return [str(seconds), str(micros)]


@app.handler
def role() -> list[object]:
    """Say that this is a master without replicas."""
    return ["master", 0, []]


@app.handler
def wait(numreplicas: int, timeout: int) -> int:
    """Return how many replicas have the writes: none, for there are none."""
    if timeout < 0:
        raise ClientError("timeout is negative")
    return 0


@app.handler
def waitaof(numlocal: int, numreplicas: int, timeout: int) -> list[int]:
    """Return that neither a file of commands nor replicas have the writes."""
    if numlocal > 0:
        raise ClientError("WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
    if timeout < 0:
        raise ClientError("timeout is negative")
    return [0, 0]


def _save(store: Store, db: Db) -> None:
    db.commit()
    store.sync()
    with db.write() as t:
        t.set_note(_SAVED, b"%d" % int(time.time()))


def saved_at(t: Txn) -> int:
    """Return when the store was last written to its disk by a command; or when the server began."""
    return int(t.note(_SAVED) or started_at())


@app.handler
def save(store: Store, db: Db) -> Status:
    """Have the kernel write the store to its disk."""
    _save(store, db)
    return OK


@app.handler
def bgsave(store: Store, db: Db, *schedule: str) -> Status:
    """Have the kernel write the store to its disk; at once, as SAVE."""
    if schedule and (len(schedule) > 1 or schedule[0].upper() != "SCHEDULE"):
        raise ClientError("syntax error")
    _save(store, db)
    return Status("Background saving started")


@app.handler
def bgrewriteaof() -> Status:
    """Accept, for there is no file of commands."""
    return Status("Background append only file rewriting started")


@app.handler
def lastsave(db: Db) -> int:
    """Return when the last SAVE was, as Unix time."""
    with db.read() as t:
        return saved_at(t)


@app.handler
def shutdown(*words: str) -> Status | Reply:
    """Stop the server gracefully: requests in flight are completed first.

    The words are those of Redis: NOSAVE, SAVE, NOW, FORCE and ABORT.
    """
    options = {word.upper() for word in words}
    if not options <= {"NOSAVE", "SAVE", "NOW", "FORCE", "ABORT"} or {"SAVE", "NOSAVE"} <= options:
        raise ClientError("syntax error")
    if "ABORT" in options:
        raise ClientError("No shutdown in progress.")
    try:
        os.kill(os.getppid(), signal.SIGTERM)
    except PermissionError:
        raise ClientError("Errors trying to SHUTDOWN. Check logs.") from None
    return Reply(raw=b"", close=True)


@app.handler
def lolwut(resp: Resp, *words: bytes) -> Verbatim:
    """Draw a night sky, and say which version of Redis clients may expect."""
    chance = random.Random()  # noqa: S311 - not a secret
    rows = ["".join(chance.choice(_STARS) if chance.random() < 0.1 else " " for _ in range(60))]
    rows += ["".join(chance.choice(_STARS) if chance.random() < 0.1 else " " for _ in range(60))]
    return Verbatim("\n".join([*rows, f"Redis ver. {resp.redis_version}", ""]))
