"""CLIENT UNBLOCK: what lets another client end the wait of a blocking command."""

from __future__ import annotations

import mmap
import os
import zlib
from typing import cast

from linepool import ClientError, Wait, Waited

_MARKS = 65536
NOT, WAITS, TIMED_OUT, FAILED = range(4)
"""What a mark says: the client does not wait; it does; it was unblocked, without or with an error."""


class Blocked:
    """Which clients wait, for all workers: a mark for each, by the ids of their sessions.

    Two clients may share a mark; then one that does not wait seems to.

    Args:
        directory: That of the store.
    """

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, "blocked")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(file, _MARKS)
        self._marks = mmap.mmap(file, _MARKS)
        os.close(file)

    def close(self) -> None:
        """Let go of the file."""
        self._marks.close()

    def __getitem__(self, client: str) -> int:
        return self._marks[_place(client)]

    def __setitem__(self, client: str, mark: int) -> None:
        self._marks[_place(client)] = mark


def _place(client: str) -> int:
    return zlib.crc32(client.encode()) % _MARKS


def unblock_topic(client: str) -> bytes:
    """Return the topic by which a client learns that its mark has changed."""
    return f"unblock:{client}".encode()


class Unblocking:
    """The wait of one request, which CLIENT UNBLOCK may end. Made before a blocking command looks.

    Args:
        blocked: Which clients wait; None: this one cannot.
        client: The id of the client's session.
        waited: What the handler was given.
    """

    def __init__(self, blocked: Blocked | None, client: str, waited: Waited) -> None:
        self._blocked = blocked
        self._client = client
        self._waited = waited
        self._mark = NOT
        if blocked is not None and waited.times:
            self._mark, blocked[client] = blocked[client], NOT

    def wait(self, wait: Wait) -> Wait:
        """Have the request wait; or return the reply in its place, if it was unblocked.

        Raises:
            ClientError: It was, with an error.
        """
        if self._blocked is None:
            return wait
        if self._mark == FAILED:
            raise ClientError("client unblocked via CLIENT UNBLOCK", code="UNBLOCKED")
        if self._mark == TIMED_OUT:
            return cast("Wait", wait.then)
        if not self._waited.expired:
            self._blocked[self._client] = WAITS
        topics = (*wait.topics, unblock_topic(self._client))
        return Wait(*topics, timeout=wait.timeout, then=wait.then, keep=wait.keep)
