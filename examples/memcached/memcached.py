"""A memcached server with worker processes; see README.md."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator

from lmdb_store import LmdbStore, map_bytes, opened
from shared import started_ticks

import linepool

MEMORY_DISK = "/dev/shm"  # noqa: S108 - the kernel's own name for it
TEMPORARY = "memcached-server-"  # begins the names of directories that are deleted
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def memory(name: str, default: str) -> int:
    """Return the size in bytes that an environment variable gives, such as 64M."""
    text = os.environ.get(name, default).upper().removesuffix("B")
    match = re.fullmatch(r"([0-9]+)([KMG]?)", text)
    if not match or int(match[1]) * _UNITS[match[2]] < 2**20:
        raise linepool.SetupError(f"{name} must be a size such as 64M, at least 1M, not {text!r}")
    return int(match[1]) * _UNITS[match[2]]


LIMIT = memory("MEMCACHED_MEMORY", "64M")
MOST = max(LIMIT, memory("MEMCACHED_MOST_MEMORY", "1M"))


def store() -> Iterator[LmdbStore]:
    """Open the store in each worker: an LMDB environment must not cross a fork."""
    yield from opened(os.environ["MEMCACHED_DIR"], LIMIT, MOST)


def batch(store: linepool.cache.Store) -> Iterator[linepool.cache.Store]:
    """Have the updates that are answered together make one transaction."""
    assert isinstance(store, LmdbStore)
    store.share()
    try:
        yield store
        store.commit()
    finally:
        store.roll_back()


app = linepool.cache.server(store, "memcached", batch=batch)


@app.on_start
def choose_directory() -> None:
    """Without MEMCACHED_DIR, keep the items in memory, where a reload finds them again."""
    if "MEMCACHED_DIR" in os.environ:
        return
    # A worker that writes to a full one is killed by SIGBUS.
    is_fit = os.path.isdir(MEMORY_DISK) and shutil.disk_usage(MEMORY_DISK).free > map_bytes(MOST)
    name = f"{TEMPORARY}{os.getppid()}-{started_ticks()}"  # of the master
    places = [os.path.join(where, name) for where in (MEMORY_DISK, tempfile.gettempdir())]
    directory = next(filter(os.path.isdir, places), places[0 if is_fit else 1])
    os.makedirs(directory, 0o700, exist_ok=True)
    if os.stat(directory).st_uid != os.geteuid():
        raise linepool.SetupError(f"{directory} belongs to another user; give MEMCACHED_DIR")
    os.environ["MEMCACHED_DIR"] = directory


@app.on_stop
def delete_items() -> None:
    """Delete the items in memory when the server stops."""
    directory = os.environ["MEMCACHED_DIR"]
    if os.path.basename(directory).startswith(TEMPORARY):
        shutil.rmtree(directory, ignore_errors=True)


@app.on_connect
def count_connection(store: linepool.cache.Store) -> None:
    """Count connections for ``stats``."""
    store.count("total_connections")


if __name__ == "__main__":
    linepool.run(app)
