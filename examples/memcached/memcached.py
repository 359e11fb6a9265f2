"""A memcached server with worker processes; see README.md."""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Iterator

from lmdb_store import LmdbStore, map_bytes, opened

import linepool

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def memory() -> int:
    """Return the maximum size of all items in bytes: MEMCACHED_MEMORY, such as 64M."""
    text = os.environ.get("MEMCACHED_MEMORY", "64M").upper().removesuffix("B")
    match = re.fullmatch(r"([0-9]+)([KMG]?)", text)
    if not match or int(match[1]) * _UNITS[match[2]] < 2**20:
        raise linepool.SetupError(
            f"MEMCACHED_MEMORY must be a size such as 64M, at least 1M, not {text!r}"
        )
    return int(match[1]) * _UNITS[match[2]]


LIMIT = memory()


def store() -> Iterator[LmdbStore]:
    """Open the store in each worker: an LMDB environment must not cross a fork."""
    yield from opened(os.environ["MEMCACHED_DIR"], LIMIT)


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
    """Without MEMCACHED_DIR, keep the items in memory, and delete them when the server stops."""
    if "MEMCACHED_DIR" in os.environ:
        return
    memory_disk = "/dev/shm"  # noqa: S108 - the kernel's own name for it
    # A worker that writes to a full one is killed by SIGBUS.
    is_fit = os.path.isdir(memory_disk) and shutil.disk_usage(memory_disk).free > map_bytes(LIMIT)
    directory = tempfile.mkdtemp(prefix="memcached-", dir=memory_disk if is_fit else None)
    os.environ["MEMCACHED_DIR"] = directory
    master = os.getpid()

    @atexit.register
    def clean_up() -> None:
        if os.getpid() == master:
            shutil.rmtree(directory, ignore_errors=True)


@app.on_connect
def count_connection(store: linepool.cache.Store) -> None:
    """Count connections for ``stats``."""
    store.count("total_connections")


if __name__ == "__main__":
    linepool.run(app)
