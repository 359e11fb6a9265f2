r"""A key-value store that all workers share, kept in LMDB.

    pip install lmdb
    linepool run examples/kv.py --bind 127.0.0.1:7000

    SET color deep blue      one line of text
    OK
    GET color                a value may contain any bytes, so its length comes first
    VALUE 9
    deep blue
    PUT photo 3              the announced number of bytes, then a line ending
    \x00\n\xff
    OK
    INCR visits 2            atomic across all workers
    2

Environment variables: KV_DIR is the directory (default: kv.lmdb in the working directory), KV_SIZE_MB
its maximum size (1024). LMDB reuses space freed by a DELETE from the second change after it. An
acknowledged change survives the crash of any process. To survive a power failure too, set KV_SYNC=1:
each change then waits for the disk.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import lmdb

import linepool

SIZE_MB = int(os.environ.get("KV_SIZE_MB", "1024"))
MAX_KEY_BYTES = 511  # LMDB's limit
MAX_READERS = 2048  # slots in LMDB's table of readers; more than the maximum number of workers
KEYS_PER_TRANSACTION = 500  # read by KEYS
INT64 = range(-(2**63), 2**63)


@linepool.resource
def store() -> Iterator[lmdb.Environment]:
    """Open the store in each worker: an LMDB environment must not cross a fork."""
    with lmdb.open(
        os.environ.get("KV_DIR", "kv.lmdb"),
        map_size=SIZE_MB * 2**20,
        max_readers=MAX_READERS,
        sync=os.environ.get("KV_SYNC") == "1",
    ) as environment:
        environment.reader_check()  # free the slots of killed workers
        yield environment


@contextmanager
def change(store: lmdb.Environment) -> Iterator[lmdb.Transaction]:
    """Run one atomic, isolated change.

    Until it ends, all other workers that want to write are blocked. Do nothing but the change in it:
    never wait for the client here.
    """
    try:
        with store.begin(write=True) as transaction:
            yield transaction
    except lmdb.MapFullError:  # from a put, or only from the commit
        raise linepool.ServerError(f"the store is full ({SIZE_MB} MiB)") from None


def key_bytes(key: str) -> bytes:
    """Return a key as it is stored; refuse keys that KEYS could not list as a line."""
    encoded = key.encode()
    if not 1 <= len(encoded) <= MAX_KEY_BYTES:
        raise linepool.ClientError(f"a key has 1 to {MAX_KEY_BYTES} bytes.")
    if not key.isprintable() or re.search(r"[\s\"']", key):
        raise linepool.ClientError("a key is printable text without spaces or quotes.")
    return encoded


@linepool.handler
def get(key: str, store: lmdb.Environment) -> linepool.Reply:
    """Show a value: VALUE and its length in bytes, then its bytes; or NOT_FOUND."""
    with store.begin() as transaction:
        value = transaction.get(key_bytes(key))
    if value is None:
        return linepool.Reply("NOT_FOUND")
    # Not as a line: a value with a line break would look like two replies.
    return linepool.Reply(raw=b"VALUE %d\n%b\n" % (len(value), value))


@linepool.handler("SET")
def set_text(key: str, value: linepool.Rest, store: lmdb.Environment) -> None:
    """Store the rest of the line."""
    with change(store) as transaction:
        transaction.put(key_bytes(key), value.encode())


@linepool.handler
def put(key: str, size: int, store: lmdb.Environment, value: bytes = linepool.body("size")) -> None:
    """Store a data block, any bytes."""
    with change(store) as transaction:
        transaction.put(key_bytes(key), value)


@linepool.handler
def delete(key: str, store: lmdb.Environment) -> str:
    """Remove a key; NOT_FOUND if there is none."""
    with change(store) as transaction:
        return "OK" if transaction.delete(key_bytes(key)) else "NOT_FOUND"


@linepool.handler("INCR", "DECR")
def count_up(key: str, verb: linepool.Verb, store: lmdb.Environment, by: int = 1) -> int:
    """Add to a whole number (DECR: subtract) and show the result; a missing key counts as 0."""
    with change(store) as transaction:
        old = transaction.get(key_bytes(key), default=b"0")
        if not re.fullmatch(rb"-?[0-9]{1,19}", old):
            raise linepool.ClientError("the value is not a whole number.")
        new = int(old) + (by if verb == "INCR" else -by)
        if new not in INT64:
            raise linepool.ClientError("the result does not fit into 64 bits.")
        transaction.put(key_bytes(key), b"%d" % new)
    return new


@linepool.handler
def keys(store: lmdb.Environment, prefix: str = "") -> Iterator[str]:
    """List the keys in order, optionally only those with a prefix."""
    wanted = key_bytes(prefix) if prefix else b""
    last = b""
    while found := next_keys(store, wanted, last):
        # Sent between transactions: a slow client must not pin old pages of the store.
        yield from (key.decode() for key in found)
        last = found[-1]


def next_keys(store: lmdb.Environment, prefix: bytes, last: bytes) -> list[bytes]:
    """Return the next keys with a prefix, in order, after ``last``; b"": from the first."""
    found: list[bytes] = []
    with store.begin() as transaction, transaction.cursor() as cursor:
        more = cursor.set_range(last or prefix)
        if more and cursor.key() == last:
            more = cursor.next()
        while more and len(found) < KEYS_PER_TRANSACTION and cursor.key().startswith(prefix):
            found.append(cursor.key())
            more = cursor.next()
    return found


@linepool.handler("COUNT")
def count_keys(store: lmdb.Environment) -> int:
    """Count the keys."""
    return int(store.stat()["entries"])


if __name__ == "__main__":
    linepool.run()
