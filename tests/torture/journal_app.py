"""The app of torture_churn.py: it journals every request when it begins and when it ends.

Each worker writes its own file, named by its pid, in the directory $JOURNALS. One write() with
O_APPEND writes one line (``+7``: request 7 began, ``-7``: it ended), so SIGKILL cannot leave a partial
line.
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
    """The journal of this worker."""

    descriptor: int

    def note(self, sign: bytes, request: int) -> None:
        os.write(self.descriptor, b"%b%d\n" % (sign, request))


@linepool.resource
def journal() -> Iterator[Journal]:
    path = os.path.join(os.environ["JOURNALS"], str(os.getpid()))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    yield Journal(descriptor)
    os.close(descriptor)


@linepool.handler
def work(request: int, journal: Journal) -> str:
    """Sleep and compute for a few milliseconds; return the request, the pid and a hash as proof."""
    journal.note(b"+", request)
    proof = hashlib.sha256(b"%d" % request).hexdigest()
    time.sleep(request % 5 / 1000)
    for _ in range(request % 300):
        hashlib.sha256(proof.encode()).digest()
    journal.note(b"-", request)
    return f"{request} {os.getpid()} {proof}"
