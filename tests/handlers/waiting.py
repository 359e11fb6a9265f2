"""Handlers whose requests wait; the queues are files, which all workers share."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator

from common import current_worker

import linepool


class Queues:
    """Queues of words in one file, under a lock."""

    def put(self, queue: str, words: tuple[str, ...]) -> None:
        """Add words to a queue."""
        with self._lines() as lines:
            lines += [[queue, word] for word in words]

    def take(self, queue: str) -> str | None:
        """Take the first word of a queue; None: there is none."""
        with self._lines() as lines:
            for line in lines:
                if line[0] == queue:
                    lines.remove(line)
                    return line[1]
        return None

    @contextlib.contextmanager
    def _lines(self) -> Iterator[list[list[str]]]:
        with open("queues", "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            lines = [line.split() for line in file]
            yield lines
            file.seek(0)
            file.truncate()
            file.writelines(" ".join(line) + "\n" for line in lines)


@linepool.resource
def queues() -> Iterator[Queues]:
    """Give the queues."""
    yield Queues()


@linepool.handler
def take(
    queue: str, queues: Queues, waited: linepool.Waited, timeout: float = 30.0
) -> str | linepool.Wait:
    """Take the first word of a queue, or wait for one."""
    if word := queues.take(queue):
        return f"{word} {waited.times}"
    return linepool.Wait(queue, timeout=timeout, then="none")


@linepool.handler
def take_any(queues: Queues, *names: str) -> str | linepool.Wait:
    """Take the first word of the first queue that has one, or wait."""
    for name in names:
        if word := queues.take(name):
            return f"{name} {word}"
    return linepool.Wait(*names, timeout=30, then="none")


@linepool.handler
def put(queue: str, queues: Queues, waiters: linepool.Waiters, *words: str) -> int:
    """Add words to a queue, and wake as many requests."""
    queues.put(queue, words)
    waiters.notify(queue, len(words))
    return len(words)


@linepool.handler
def hint(topic: str, waiters: linepool.Waiters, count: int = 1) -> None:
    """Wake requests though nothing has come."""
    waiters.notify(topic, count)


@linepool.handler
def shout(topic: str, waiters: linepool.Waiters) -> None:
    """Wake all requests that wait for a topic."""
    waiters.publish(topic)


@linepool.handler
def runs(topic: str, waited: linepool.Waited, most: int = 100) -> str | linepool.Wait:
    """Say why it runs again, and how often it has."""
    why = "stopping" if waited.stopping else "expired" if waited.expired else "woken"
    if waited.times >= most or waited.expired:
        return f"{why} {waited.times} {waited.topic.decode()} {waited.kept.decode()}"
    return linepool.Wait(topic, timeout=60, keep=waited.kept + b"x")


@linepool.handler
def never(waited: linepool.Waited, topic: str = "t", timeout: float = 0.05) -> linepool.Wait:
    """Wait, whatever happens."""
    return linepool.Wait(topic, timeout=timeout, then=f"waited {waited.times}")


@linepool.handler
def fail_when_woken(queue: str, waited: linepool.Waited) -> str | linepool.Wait:
    """Fail once it is woken."""
    if waited.times:
        raise ValueError("woken in vain")
    return linepool.Wait(queue, timeout=30)


@linepool.handler
def hang_when_woken(queue: str, waited: linepool.Waited) -> str | linepool.Wait:
    """Never end once it is woken."""
    while waited.times:
        time.sleep(0.05)
    return linepool.Wait(queue, timeout=30)


@linepool.handler
def waiting() -> int:
    """Return how many requests wait."""
    return int(current_worker()._board.waiters)
