"""The app of the experiments: every request has a number and a reply that proves it, and is journaled.

Each worker writes its own file in the directory $JOURNALS, named by its pid and the time of its first
request, because a pid may be used again; the name is in every reply. One write() with O_APPEND writes one
line, so SIGKILL cannot leave a partial line: ``+7`` request 7 began, ``-7`` it ended, ``!8.5:4711,4712`` at
8.5 (monotonic) the worker ended itself while it held the connections of these clients' ports. What begins
with another sign concerns one experiment only.

The handlers that hang are those of stuck_app.py.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import socket
import time
from collections.abc import Iterator

import stuck_app  # noqa: F401 - registers its handlers
from attrs import frozen

import linepool

_BY_NAME = (
    "JOURNAL_BY_NAME" in os.environ
)  # for handlers that close descriptors that they do not own
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


@frozen
class Journal:
    """The journal of this worker; all apps share it."""

    name: str
    path: str
    descriptor: int

    def write(self, line: str) -> None:
        descriptor = os.open(self.path, _FLAGS, 0o600) if _BY_NAME else self.descriptor
        os.write(descriptor, f"{line}\n".encode())
        if _BY_NAME:
            os.close(descriptor)


@functools.cache
def _journal_of(pid: int) -> Journal:
    name = f"{pid}.{time.monotonic_ns()}"
    path = os.path.join(os.environ["JOURNALS"], name)
    return Journal(name, path, -1 if _BY_NAME else os.open(path, _FLAGS, 0o600))


@linepool.resource
def journal() -> Iterator[Journal]:
    yield _journal_of(os.getpid())


def proof(request: int, journal: Journal) -> str:
    """Return the reply that only this worker can give to this request."""
    return f"{request} {journal.name} {hashlib.sha256(b'%d' % request).hexdigest()}"


@linepool.handler
def work(request: int, journal: Journal) -> str:
    """Sleep and compute for a few milliseconds; return the request, the worker and a hash as proof."""
    journal.write(f"+{request}")
    time.sleep(request % 5 / 1000)
    for _ in range(request % 300):
        hashlib.sha256(b"%d" % request).digest()
    journal.write(f"-{request}")
    return proof(request, journal)


@linepool.handler
def end(request: int, journal: Journal) -> None:
    """End this worker with os._exit()."""
    journal.write(f"+{request}")
    journal.write(f"!{time.monotonic()}:{','.join(map(str, held()))}")
    os._exit(3)


@linepool.handler("HASH")
def compute_in_c() -> int:
    """Return after some tenths of a second in C code."""
    return len(hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 400_000))


@linepool.handler
def fail(request: int, journal: Journal) -> None:
    """Raise an exception whose text has all bytes that a log must not contain as they are."""
    journal.write(f"+{request}")
    journal.write(f"-{request}")
    raise ValueError("".join(map(chr, range(256))))


@linepool.handler
def big(request: int, size: int, journal: Journal) -> str:
    """Return the proof, then as many letters."""
    journal.write(f"+{request}")
    journal.write(f"-{request}")
    return f"{proof(request, journal)} {'x' * size}"


@linepool.handler("BEGUN")
def hang_after_a_part(request: int, journal: Journal) -> Iterator[str]:
    """a stream that stops after its first line"""
    journal.write(f"+{request}")
    yield proof(request, journal)
    time.sleep(1000)


def held() -> Iterator[int]:
    """Yield the client ports of the connections that this process holds."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.family == socket.AF_INET:
                yield sock.getpeername()[1]
