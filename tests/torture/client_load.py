"""Calls of linepool's client while something happens to its servers or to itself; what becomes of each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from attrs import Factory, define

from linepool import AsyncClient, Client
from linepool.client import ConnectionFailed
from tests.conftest import Launch
from tests.servers import ServerProcess
from tests.torture.account import Journals

_THREADS = 4
_TASKS = 20


@define
class Calls:
    """Calls of the command ``work`` of journal_app.py; those with even numbers may be run twice.

    Attributes:
        done: The numbers of those with a result.
        failed: The other ones, with their errors.
        wrong: Results that are those of other calls.
    """

    done: list[int] = Factory(list)
    failed: dict[int, ConnectionFailed] = Factory(dict)
    wrong: list[str] = Factory(list)
    _numbers: Iterator[int] = Factory(itertools.count)
    _over: threading.Event = Factory(threading.Event)

    @contextlib.contextmanager
    def running(self, addresses: Sequence[str]) -> Iterator[Calls]:
        """Make calls, in threads that share a client, until the block ends."""
        self._over.clear()
        with Client(*addresses) as client:
            threads = [threading.Thread(target=self._run, args=(client,)) for _ in range(_THREADS)]
            for thread in threads:
                thread.start()
            try:
                yield self
            finally:
                self._over.set()
                for thread in threads:
                    thread.join()

    def more(self, count: int) -> None:
        """Wait until so many more calls have had results."""
        wanted = len(self.done) + count
        while len(self.done) < wanted:
            self._over.wait(0.01)

    def _run(self, client: Client) -> None:
        repeatable = client.with_options(idempotent=True)
        while not self._over.is_set():
            number = next(self._numbers)
            try:
                result = (client if number % 2 else repeatable).call("work", number)
            except ConnectionFailed as error:
                self.failed[number] = error
            else:
                self.done.append(number)
                if result.partition(" ")[0] != str(number):
                    self.wrong.append(f"{number}: {result}")

    def check(self, journals: Path) -> None:
        """Compare with what the workers have written: all that has failed is reported, and nothing else."""
        kept = Journals.read(journals)
        began = Counter(number for _, number in kept.began)
        ended = {number for _, number in kept.ended}
        assert not self.wrong
        assert not [number for number in self.failed if number % 2 == 0], self.failed
        assert all(error.was_sent for error in self.failed.values()), self.failed
        assert ended.issuperset(self.done)
        once = {number for number in began if number % 2}
        assert all(began[number] == 1 for number in once)
        assert once - ended <= self.failed.keys()


async def cancel_calls(client: AsyncClient, count: int, seed: int = 1) -> int:
    """Cancel so many calls of the command ``text`` at random moments; return how many were not cancelled.

    Each of these must have its own result.
    """
    chosen = random.Random(seed)
    done = cancelled = start = 0
    while cancelled < count:
        numbers = range(start, start + _TASKS)
        tasks = [asyncio.create_task(_asked(client, number)) for number in numbers]
        for _ in range(chosen.randrange(12)):
            await asyncio.sleep(0)
        if chosen.random() < 0.5:
            await asyncio.sleep(chosen.random() * 0.002)
        for task in tasks:
            if chosen.random() < 0.7:
                task.cancel()
        for number, result in zip(
            numbers, await asyncio.gather(*tasks, return_exceptions=True), strict=True
        ):
            if isinstance(result, asyncio.CancelledError):
                cancelled += 1
            else:
                assert result == str(number)
                done += 1
        start += _TASKS
    return done


async def _asked(client: AsyncClient, number: int) -> str:
    """Call in one of three ways."""
    if number % 3 == 0:
        (found,) = [one async for one in client.stream("text", str(number))]
        return str(found)
    if number % 3 == 1:
        async with client.pipeline() as pipeline:
            _, last = pipeline.call("text", "x"), pipeline.call("text", str(number))
        return str(last.result())
    return str(await client.call("text", str(number)))


class Interrupted(BaseException):
    """Raised by a signal handler, as RequestTimeout is."""


def interrupt_calls(client: Client, count: int, seed: int = 1) -> int:
    """Have a signal handler raise in calls of ``text`` at random moments; return in how many it did.

    Pre-condition: this is the main thread, and the client has one connection.
    """
    chosen = random.Random(seed)
    interrupted = 0
    before = signal.signal(signal.SIGALRM, _interrupt)
    try:
        for number in range(count):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + chosen.random() * 3e-4)
                while True:
                    assert client.call("text", str(number)) == str(number)
            except Interrupted:
                interrupted += 1
            assert client.call("text", f"after {number}") == f"after {number}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return interrupted


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


class Journaled:
    """Servers of journal_app.py, and calls of a client to them.

    Args:
        launch: The fixture.
        directory: For the journals.
        count: Of the servers.
    """

    def __init__(self, launch: Launch, directory: Path, count: int = 1) -> None:
        self._launch = launch
        self._journals = directory / "journals"
        self._journals.mkdir()
        self.servers = [self._start("127.0.0.1:0") for _ in range(count)]
        self.addresses = [server.address for server in self.servers]

    def _start(self, address: str) -> ServerProcess:
        options = (
            "--workers",
            "3",
            "--poison-deaths",
            "0",
        )  # the command is not to blame for kills
        environment = {"JOURNALS": str(self._journals)}
        return self._launch(_APP, *options, bind=(address,), environment=environment)

    def reload(self, number: int) -> None:
        """Reload the code of the first server, which is the ``number``-th time."""
        self.servers[0].send(signal.SIGHUP)
        self.servers[0].wait_for(f"reloaded generation {number + 1}")

    def kill_workers(self, calls: Calls) -> None:
        """Kill every worker of the first server in turn."""
        server = self.servers[0]
        for pid in server.pids():
            with contextlib.suppress(ProcessLookupError):  # one of the code before that has left
                os.kill(pid, signal.SIGKILL)
            server.until_gone(pid)
            calls.more(10)

    def restart(self, number: int) -> None:
        """Stop one of the servers gracefully and start it again."""
        self.servers[number].stop()
        self.servers[number] = self._start(self.addresses[number])

    def check(self, calls: Calls) -> None:
        """Check the calls, which are over."""
        calls.check(self._journals)


_APP = Path(__file__).with_name("journal_app.py")
