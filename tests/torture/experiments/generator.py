"""The clients of the experiments, in a process of their own that is started before the server.

Run as a program: the first line of standard input is the plan, as JSON; the end of standard input stops the
clients, which then wait for the replies that are due, and what became of all requests is printed as JSON.
No request number is used twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import ssl
import sys
import time
from collections.abc import Iterator
from hashlib import sha256

from attrs import Factory, asdict, astuple, define, frozen

REPLY_LIMIT = 40.0  # seconds; a reply that takes longer counts as lost
TIMED_OUT = "timed out"
_RETRY_AFTER = 0.01  # seconds, after a lost or refused connection
_BURST = 3  # requests sent at once, one time in _BURST_ONE_IN
_BURST_ONE_IN = 8
_LINE_LIMIT = 1 << 16


@frozen(kw_only=True)
class Plan:
    """What the clients do.

    Attributes:
        address: HOST:PORT or unix:/PATH.
        clients: How many.
        first: The number of the first request.
        pause: Seconds that a client pauses between two requests at most.
        all_pause: Whether all clients do; otherwise half of them never do.
        each: Requests on a connection before the client opens another one; 0: all.
        bursts: Whether a client sends several requests at once now and then.
        authority: The path of the certificate that signs the server's; "": no TLS.
        proxied: Whether each connection begins with a PROXY header.
        is_resp: Whether the app speaks RESP, otherwise lines.
        seed: Of what is random.
    """

    address: str
    clients: int = 6
    first: int = 1
    pause: float = 0.15
    all_pause: bool = False
    each: int = 0
    bursts: bool = True
    authority: str = ""
    proxied: bool = False
    is_resp: bool = False
    seed: int = 1


@frozen
class Request:
    """What became of a request.

    Attributes:
        how: "": the right reply; "wrong: ..." another one; "error: ..." an error line; else how it was lost.
        worker: The journal of the worker that the reply names.
        port: Of the client's end of the connection; 0: unix socket.
        opened_at: When the connection was opened.
    """

    number: int
    how: str
    worker: str
    port: int
    opened_at: float
    sent_at: float
    ended_at: float

    @property
    def is_right(self) -> bool:
        return not self.how

    @property
    def is_wrong(self) -> bool:
        return self.how.startswith("wrong")


def judged(number: int, line: bytes) -> tuple[str, str]:
    """Return how a request went by its reply, and the worker that replied."""
    words = line.split()
    proof = sha256(b"%d" % number).hexdigest().encode()
    if len(words) >= 3 and words[0] == b"%d" % number and words[2] == proof:
        return "", words[1].decode()
    if line.startswith((b"SERVER_ERROR", b"ERROR", b"-ERR")):
        return f"error: {line.decode().strip()}", ""
    return f"wrong: {line[:100]!r}", ""


@define
class Clients:
    """All clients of the process."""

    plan: Plan
    context: ssl.SSLContext | None
    requests: list[Request] = Factory(list)
    refused: int = 0
    closed: int = 0
    over: asyncio.Event = Factory(asyncio.Event)
    numbers: Iterator[int] = Factory(lambda self: itertools.count(self.plan.first), takes_self=True)

    async def run(self, index: int) -> None:
        """Be one client until the end."""
        rng = random.Random(f"{self.plan.seed} {index}")
        while not self.over.is_set():
            opened_at = time.monotonic()
            try:
                reader, writer = await self._connect()
            except OSError:
                self.refused += 1
                await asyncio.sleep(_RETRY_AFTER)
                continue
            name = writer.get_extra_info("sockname")
            port = name[1] if isinstance(name, tuple) else 0
            connection = Connection(self, reader, writer, port, opened_at)
            if not await connection.use(self.plan.all_pause or index % 2 == 1, rng):
                await asyncio.sleep(_RETRY_AFTER)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self.plan.address
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            return await asyncio.open_unix_connection(path, limit=_LINE_LIMIT)
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=_LINE_LIMIT)
        if self.plan.proxied:
            writer.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n")
        if self.context is not None:
            await writer.start_tls(self.context, server_hostname="localhost")
        return reader, writer


@frozen
class Connection:
    """One connection of one client."""

    clients: Clients
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    port: int
    opened_at: float

    async def use(self, pauses: bool, rng: random.Random) -> bool:
        """Send requests as long as the plan says; return False if the connection was lost."""
        plan, over = self.clients.plan, self.clients.over
        for turn in itertools.count(1):
            count = _BURST if plan.bursts and not rng.randrange(_BURST_ONE_IN) else 1
            if not await self._ask(list(itertools.islice(self.clients.numbers, count))):
                return False
            if over.is_set() or turn == plan.each:
                return True
            if pauses:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), rng.uniform(0, plan.pause))
                if self.reader.at_eof():  # without a request under way: nothing is lost
                    self.clients.closed += 1
                    return False
            if over.is_set():
                return True
        raise AssertionError

    async def _ask(self, numbers: list[int]) -> bool:
        sent_at = time.monotonic()
        waiting = numbers[:]
        lost = "closed"
        try:
            self.writer.write(b"".join(b"WORK %d\n" % number for number in numbers))
            while waiting:
                line = await asyncio.wait_for(self._reply(), REPLY_LIMIT)
                if not line.endswith(b"\n"):
                    lost = "closed within a reply" if line else "closed"
                    break
                number = waiting.pop(0)
                self._note(number, *judged(number, line), sent_at)
        except TimeoutError:
            lost = TIMED_OUT
        except OSError as error:
            lost = type(error).__name__
        for number in waiting:
            self._note(number, lost, "", sent_at)
        return not waiting

    async def _reply(self) -> bytes:
        line = await self.reader.readline()
        if not self.clients.plan.is_resp or line.startswith(b"-"):
            return line
        if line.startswith(b"$"):
            return await self.reader.readline()
        return b"no string: " + line if line else b""

    def _note(self, number: int, how: str, worker: str, sent_at: float) -> None:
        now = time.monotonic()
        self.clients.requests.append(
            Request(number, how, worker, self.port, self.opened_at, sent_at, now)
        )


async def _run(plan: Plan) -> Clients:
    context = ssl.create_default_context(cafile=plan.authority) if plan.authority else None
    clients = Clients(plan, context)
    end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    tasks = [asyncio.create_task(clients.run(index)) for index in range(plan.clients)]
    await asyncio.wait([end, *tasks], return_when=asyncio.FIRST_COMPLETED)
    clients.over.set()
    await asyncio.gather(*tasks)
    return clients


def _main() -> None:
    clients = asyncio.run(_run(Plan(**json.loads(sys.stdin.readline()))))
    found = {
        "requests": [astuple(one) for one in clients.requests],
        "refused": clients.refused,
        "closed": clients.closed,
    }
    sys.stdout.write(json.dumps(found))  # in one piece: of a soak there are a million requests


def plan_line(plan: Plan) -> str:
    """Return the first line of the program's input."""
    return json.dumps(asdict(plan)) + "\n"


if __name__ == "__main__":
    _main()
