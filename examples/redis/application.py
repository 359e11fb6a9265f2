"""The app, on which the other modules register their commands, and its store."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

from db import Db
from key_store import Store
from notifications import publish
from topics import wake

import linepool
from linepool.protocols.resp import read_facts

with open(os.path.join(os.path.dirname(__file__), "command_facts.txt"), encoding="ascii") as file:
    _FACTS = read_facts(file)
app = linepool.App(
    "redis",
    protocol=linepool.Resp(
        transactions=True, facts=_FACTS, password=os.environ.get("REDIS_PASSWORD") or None
    ),
    max_body_bytes=512 * 1024 * 1024,
)
_SIZE = os.environ.get("REDIS_SIZE_MB", "1024")
if not _SIZE.isdigit() or int(_SIZE) < 1:
    raise linepool.SetupError(f"REDIS_SIZE_MB must be a number of megabytes, not {_SIZE!r}")
SIZE_MB = int(_SIZE)
MEMORY_DISK = "/dev/shm"  # noqa: S108 - the kernel's own name for it
TEMPORARY = "redis-server-"  # begins the names of directories that are deleted


@app.on_start
def choose_directory() -> None:
    """Without REDIS_DIR, keep the keys in memory, where a reload finds them again."""
    if "REDIS_DIR" in os.environ:
        os.makedirs(os.environ["REDIS_DIR"], exist_ok=True)
        return
    # A worker that writes to a full one is killed by SIGBUS.
    is_fit = os.path.isdir(MEMORY_DISK) and shutil.disk_usage(MEMORY_DISK).free > SIZE_MB * 2**20
    places = [os.path.join(where, _name()) for where in (MEMORY_DISK, tempfile.gettempdir())]
    directory = next(filter(os.path.isdir, places), places[0 if is_fit else 1])
    os.makedirs(directory, 0o700, exist_ok=True)
    if os.stat(directory).st_uid != os.geteuid():
        raise linepool.SetupError(f"{directory} belongs to another user; give REDIS_DIR")
    os.environ["REDIS_DIR"] = directory


def _name() -> str:
    """Return the name of this server's directory: with the master's pid, and when that was started."""
    master = os.getppid()
    with open(f"/proc/{master}/stat", encoding="ascii", errors="replace") as file:
        started = file.read().rpartition(")")[2].split()[19]  # proc(5): starttime
    return f"{TEMPORARY}{master}-{started}"


@app.on_stop
def delete_keys() -> None:
    """Delete the keys in memory when the server stops."""
    directory = os.environ["REDIS_DIR"]
    if os.path.basename(directory).startswith(TEMPORARY):
        shutil.rmtree(directory, ignore_errors=True)


@app.resource
def store() -> Iterator[Store]:
    """Open the store in each worker: an LMDB environment must not cross a fork."""
    store = Store(os.environ["REDIS_DIR"], SIZE_MB * 2**20)
    yield store
    store.close()


@app.resource(scope="batch")
def db(
    store: Store,
    session: linepool.Session,
    pubsub: linepool.PubSub,
    waiters: linepool.Waiters,
) -> Iterator[Db]:
    """Have the commands that are answered together share a transaction."""
    db = store.db
    db.database = session.get("db", 0)
    db.client = session.id
    try:
        yield db
        db.end()
        if db.events:
            events, db.events = db.events, []
            publish(events, db.notified, pubsub)
        if db.messages:
            messages, db.messages = db.messages, []
            for channel, message in messages:
                pubsub.publish(channel, message)
    except BaseException:
        db.abort()
        raise
    finally:
        if db.woken:
            woken, db.woken = db.woken, {}
            wake(woken, waiters)
