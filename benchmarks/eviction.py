"""Hit rates of the memcached example and of memcached itself, when the cache is smaller than the data.

A client reads keys in a Zipf distribution, several with each get, and stores those that it does not find.
Both servers get the same keys in the same order, and room for as many items: memcached is measured first, and
linepool gets the memory in which as many items fit as memcached had at the end. Only the second half of the
requests counts. "LRU" is what an exact LRU list of as many items would have hit.

Exit status 1: linepool's hit rate is more than 3 points below memcached's.
"""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

from benchmarks import harness

_KEYS_PER_GET = 50
_VALUE = b"x" * 1000
_OVERHEAD = 128  # of an item, in the example's store: besides its value and its two keys
_MEMCACHED_ITEM_BYTES = 1184  # the chunk in which memcached stores a value of this size
_MOST_BEHIND = 0.03
_ALPHAS = (0.99, 0.8)
_SHARES = (0.1, 0.01)


def drawn(keys: int, alpha: float, count: int) -> list[int]:
    """Return numbers of keys, the most frequent ones scattered, always the same ones."""
    dice = random.Random(1)
    weights = list(accumulate(1 / rank**alpha for rank in range(1, keys + 1)))
    names = list(range(keys))
    dice.shuffle(names)
    return dice.choices(names, cum_weights=weights, k=count)


class Client:
    """Reads from a cache, and fills it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, 30)
        self._file = self._socket.makefile("rb")

    def hits(self, numbers: Sequence[int]) -> int:
        """Return how many gets have found their key; those keys that are missing are stored."""
        found = 0
        for at in range(0, len(numbers), _KEYS_PER_GET):
            keys = [b"key:%07d" % number for number in numbers[at : at + _KEYS_PER_GET]]
            self._socket.sendall(b"get " + b" ".join(keys) + b"\r\n")
            present = set(self._keys())
            found += sum(key in present for key in keys)
            missing = dict.fromkeys(key for key in keys if key not in present)
            if missing:
                lines = [
                    b"set %b 0 0 %d noreply\r\n%b\r\n" % (key, len(_VALUE), _VALUE)
                    for key in missing
                ]
                self._socket.sendall(b"".join(lines) + b"mn\r\n")
                self._file.readline()
        return found

    def items(self) -> int:
        """Return how many items the cache has."""
        self._socket.sendall(b"stats\r\n")
        pairs = {}
        while (line := self._file.readline()) != b"END\r\n":
            _, name, value = line.split(None, 2)
            pairs[name] = value
        return int(pairs[b"curr_items"])

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()

    def _keys(self) -> Iterator[bytes]:
        while (line := self._file.readline()) != b"END\r\n":
            yield line.split(b" ", 2)[1]
            self._file.read(len(_VALUE) + 2)


def measured(address: tuple[str, int], numbers: Sequence[int]) -> tuple[float, int]:
    """Return the hit rate in the second half of the requests, and how many items there are at the end."""
    client = Client(address)
    half = len(numbers) // 2
    client.hits(numbers[:half])
    rate = client.hits(numbers[half:]) / (len(numbers) - half)
    items = client.items()
    client.close()
    return rate, items


def lru(numbers: Sequence[int], most: int) -> float:
    """Return the hit rate of an exact LRU list in the second half of the requests."""
    kept: OrderedDict[int, None] = OrderedDict()
    half, hits = len(numbers) // 2, 0
    for at, number in enumerate(numbers):
        if number in kept:
            hits += at >= half
            kept.move_to_end(number)
        else:
            kept[number] = None
            if len(kept) > most:
                kept.popitem(last=False)
    return hits / (len(numbers) - half)


@contextmanager
def memcached(megabytes: int, directory: Path) -> Iterator[tuple[str, int]]:
    """Run memcached; yield its address."""
    port = harness.free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [
        harness.find("memcached"),
        "-l",
        "127.0.0.1",
        "-p",
        str(port),
        "-m",
        str(megabytes),
        *user,
    ]
    program = harness.Program(command, directory / "memcached.log")
    try:
        harness.until("memcached accepts", lambda: _accepts(port))
        yield "127.0.0.1", port
    finally:
        program.stop()


def _accepts(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def compared(alpha: float, share: float, keys: int, count: int, directory: Path) -> list[float]:
    """Return the items, and the hit rates of memcached, linepool and an exact LRU list."""
    numbers = drawn(keys, alpha, count)
    megabytes = max(2, round(keys * share * _MEMCACHED_ITEM_BYTES / 2**20))
    with memcached(megabytes, directory) as address:
        theirs, items = measured(address, numbers)
    size = items * (len(_VALUE) + 2 * len(b"key:0000000") + _OVERHEAD)
    target = harness.EXAMPLES / "memcached" / "memcached.py"
    with harness.serving(
        target, "--workers", "2", directory=directory, environment={"MEMCACHED_MEMORY": str(size)}
    ) as server:
        ours, _ = measured(("127.0.0.1", server.port), numbers)
    return [items, theirs, ours, lru(numbers, items)]


def run() -> int:
    """Measure, print the table, and return the exit status."""
    options = harness.parser(__doc__)
    options.add_argument("--keys", type=harness.at_least_one, default=1_000_000)
    options.add_argument("--requests", type=harness.at_least_one, default=1_500_000)
    given = options.parse_args()
    if not harness.find("memcached"):
        raise harness.BenchmarkError("memcached is not installed (Debian: memcached)")
    print(f"{given.keys:,} keys, {given.requests:,} reads of which the second half counts\n")
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as directory:
        for alpha in _ALPHAS:
            for share in _SHARES:
                items, theirs, ours, exact = compared(
                    alpha, share, given.keys, given.requests, Path(directory)
                )
                worst = min(worst, ours - theirs)
                percents = [f"{100 * rate:.1f} %" for rate in (theirs, ours, exact)]
                rows.append(
                    [f"{alpha}", f"{items:,.0f}", *percents, f"{100 * (ours - theirs):+.1f}"]
                )
    print(harness.table(["alpha", "items", "memcached", "linepool", "LRU", "points"], rows))
    if worst < -_MOST_BEHIND:
        print(f"\nlinepool is {-100 * worst:.1f} points behind memcached; at most 3 are right")
    return int(worst < -_MOST_BEHIND)


if __name__ == "__main__":
    harness.main(run)
