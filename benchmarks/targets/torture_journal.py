"""What torture.py runs: every request is written down when it begins and when it has ended.

Each worker has a journal of its own, named by its pid, in the directory $BENCH_JOURNALS. A line of
it (``+7``: 7 has begun, ``-7``: it has ended) is written by one write() with O_APPEND, so kill -9
leaves none of them half.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator

from attrs import frozen

import linepool


@frozen
class Journal:
    """The worker's own journal."""

    descriptor: int

    def note(self, what: bytes, request: int) -> None:
        os.write(self.descriptor, b"%b%d\n" % (what, request))


@linepool.resource
def journal() -> Iterator[Journal]:
    path = os.path.join(os.environ["BENCH_JOURNALS"], str(os.getpid()))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    yield Journal(descriptor)
    os.close(descriptor)


@linepool.handler
def work(request: int, journal: Journal) -> str:
    """Take up to some milliseconds, part of them computing, and answer with proof."""
    journal.note(b"+", request)
    proof = hashlib.sha256(b"%d" % request).hexdigest()
    time.sleep(request % 5 / 1000)
    for _ in range(request % 300):
        hashlib.sha256(proof.encode()).digest()
    journal.note(b"-", request)
    return f"{request} {os.getpid()} {proof}"
