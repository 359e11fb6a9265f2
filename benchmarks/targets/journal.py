"""What kills.py runs: every request that begins is written down before anything else happens.

Each worker has a journal of its own, named by its pid, in the directory $BENCH_JOURNALS. A line
of it is written by one write() with O_APPEND, so kill -9 leaves none of them half.
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

    def note(self, request: int) -> None:
        os.write(self.descriptor, b"%d\n" % request)


@linepool.resource
def journal() -> Iterator[Journal]:
    path = os.path.join(os.environ["BENCH_JOURNALS"], str(os.getpid()))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    yield Journal(descriptor)
    os.close(descriptor)


@linepool.handler
def work(request: int, size: int, journal: Journal) -> str:
    """Take a few milliseconds, part of them computing, and answer with proof."""
    journal.note(request)
    proof = hashlib.sha256(b"%d" % request).hexdigest()
    time.sleep(request % 5 / 1000)
    for _ in range(request % 300):
        hashlib.sha256(proof.encode()).digest()
    return f"{request} {os.getpid()} {proof * size}"
