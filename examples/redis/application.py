"""The app, on which the other modules register their commands, and its store."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

from db import Db, Store

import linepool

app = linepool.App(
    "redis", protocol=linepool.Resp(transactions=True), max_body_bytes=512 * 1024 * 1024
)
_SIZE = os.environ.get("REDIS_SIZE_MB", "1024")
if not _SIZE.isdigit() or int(_SIZE) < 1:
    raise linepool.SetupError(f"REDIS_SIZE_MB must be a number of megabytes, not {_SIZE!r}")
SIZE_MB = int(_SIZE)


@app.on_start
def choose_directory() -> None:
    """Without REDIS_DIR, keep the keys in memory, and delete them when the server stops."""
    if "REDIS_DIR" in os.environ:
        os.makedirs(os.environ["REDIS_DIR"], exist_ok=True)
        return
    memory_disk = "/dev/shm"  # noqa: S108 - the kernel's own name for it
    # A worker that writes to a full one is killed by SIGBUS.
    is_fit = os.path.isdir(memory_disk) and shutil.disk_usage(memory_disk).free > SIZE_MB * 2**20
    directory = tempfile.mkdtemp(prefix="redis-", dir=memory_disk if is_fit else None)
    os.environ["REDIS_DIR"] = directory
    master = os.getpid()

    @atexit.register
    def clean_up() -> None:
        if os.getpid() == master:
            shutil.rmtree(directory, ignore_errors=True)


@app.resource
def store() -> Iterator[Store]:
    """Open the store in each worker: an LMDB environment must not cross a fork."""
    store = Store(os.environ["REDIS_DIR"], SIZE_MB * 2**20)
    yield store
    store.close()


@app.resource(scope="batch")
def db(store: Store) -> Iterator[Db]:
    """Have the commands that are answered together share a transaction."""
    db = store.db
    try:
        yield db
    except BaseException:
        db.abort()
        raise
    db.end()
