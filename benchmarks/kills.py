"""Kill -9 random workers under load, and account for every reply.

Clients ask from several processes, some on connections that they keep, some with a connection for
each request. Every request has a number of its own, and its reply is a proof that cannot be right
by accident. No client asks twice for the same number.

Before each kill the victim is stopped for a moment (SIGSTOP, which takes effect where SIGKILL
would) and the kernel is asked which connections it holds. So for every reply that is lost there is
a witness outside the server: the connection was, or was not, among those of a worker that was
killed. The workers' own journals say besides which requests had begun, and that none began twice.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import harness
from attrs import frozen

_THREADS = 4  # clients in each process
_KEEP_FOR = 40  # requests on a connection that is kept, before the client makes a new one
_REPLY_LIMIT = 20.0  # seconds; a reply that takes longer counts as lost
_ESTABLISHED = "01"  # in /proc/net/tcp


@frozen
class Answered:
    """A request and the pid that its reply names; right: the reply proved to be this request's."""

    request: int
    pid: int
    right: bool


@frozen
class Lost:
    """A request without a whole reply, and the connection that it went to."""

    request: int
    port: int
    opened_at: float
    lost_at: float
    how: str


@frozen
class Killing:
    """A worker that was killed, with the clients' ports of the connections that it held."""

    pid: int
    at: float
    ports: frozenset[int]


@frozen
class Load:
    """What one client process does."""

    server_port: int
    keeps: bool
    first: int  # the number of its first request; the numbers of two processes never meet
    stop: Event
    results: SimpleQueue[list[Answered | Lost]]


class _Client:
    """One client, in a thread: asks, reads, judges, until it is told to stop."""

    def __init__(self, load: Load, numbers: Iterator[int]) -> None:
        self._load = load
        self._numbers = numbers
        self._keep_for = _KEEP_FOR if load.keeps else 1
        self.results: list[Answered | Lost] = []

    def run(self) -> None:
        address = ("127.0.0.1", self._load.server_port)
        while not self._load.stop.is_set():
            opened_at = time.monotonic()
            try:
                sock = socket.create_connection(address, _REPLY_LIMIT)
            except OSError as error:
                self._lose(next(self._numbers), 0, opened_at, f"connect: {type(error).__name__}")
                continue
            with sock:
                port = sock.getsockname()[1]
                for _ in range(self._keep_for):
                    request = next(self._numbers)
                    if how := self._ask(sock, request):
                        self._lose(request, port, opened_at, how)
                        break

    def _lose(self, request: int, port: int, opened_at: float, how: str) -> None:
        self.results.append(Lost(request, port, opened_at, time.monotonic(), how))

    def _ask(self, sock: socket.socket, request: int) -> str:
        """Ask once; return how the reply was lost, or "": it was not."""
        size = 1 + 200 * (request % 7 == 0)  # some replies are longer than one packet
        reply = b""
        try:
            sock.sendall(b"WORK %d %d\n" % (request, size))
            while not reply.endswith(b"\n"):
                data = sock.recv(65536)
                if not data:
                    return "closed within the reply" if reply else "closed"
                reply += data
        except OSError as error:
            return type(error).__name__
        words = reply.split()
        proof = sha256(b"%d" % request).hexdigest().encode() * size
        right = len(words) == 3 and words[0] == b"%d" % request and words[2] == proof
        pid = int(words[1]) if right else 0
        self.results.append(Answered(request, pid, right))
        return ""


def _ask_until_stopped(load: Load) -> None:
    """Run one client process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is the parent's to handle
    clients = [
        _Client(load, iter(range(load.first + i, sys.maxsize, _THREADS))) for i in range(_THREADS)
    ]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.results.put([result for client in clients for result in client.results])


def _connections_of(pid: int, server_port: int) -> frozenset[int]:
    """Return the clients' ports of the connections that a process holds (proc(5))."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        name = os.readlink(entry.path)
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, _, _, _, _, inode, *_ = line.split()
        if inode in inodes and int(local.rpartition(":")[2], 16) == server_port:
            ports.add(int(remote.rpartition(":")[2], 16))
    return frozenset(ports - {0})  # 0: the listener


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _kill_one(server: harness.Server, dice: random.Random) -> Killing | None:
    """Kill a worker chosen by chance; None: it ended by itself meanwhile."""
    workers = [one["pid"] for one in server.status()["workers"] if one["state"] in ("idle", "busy")]
    if not workers:
        return None
    pid = dice.choice(workers)
    try:
        pidfd = os.pidfd_open(pid)
        if pid not in harness.children(server.pid):
            return None
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        harness.until("the worker stopped", lambda: _state(pid) in "TZX")
        ports = _connections_of(pid, server.port)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return None
    os.close(pidfd)
    return Killing(pid, time.monotonic(), ports)


def _kill_many(server: harness.Server, count: int, rate: float) -> list[Killing]:
    dice = random.Random(count)
    killings: list[Killing] = []
    give_up_at = time.monotonic() + 20 + 10 * count / rate
    while len(killings) < count:
        if time.monotonic() > give_up_at:
            raise harness.BenchmarkError(f"only {len(killings)} of {count} workers could be killed")
        if killing := _kill_one(server, dice):
            killings.append(killing)
        time.sleep(dice.uniform(0.5, 1.5) / rate)
    return killings


def _read_journals(directory: Path) -> list[tuple[int, int]]:
    """Return (pid, request) for every request that a worker began."""
    return [
        (int(path.name), int(number))
        for path in directory.iterdir()
        for number in path.read_text().split()
    ]


@frozen
class Account:
    """What became of all requests."""

    answered: list[Answered]
    lost: list[Lost]
    killings: list[Killing]
    began: list[tuple[int, int]]

    def rows(self) -> list[tuple[str, int, str]]:
        """Return (what, how many, what it must be) for the table."""
        by = {request: pid for pid, request in self.began}
        twice = sum(count - 1 for count in Counter(number for _, number in self.began).values())
        elsewhere = sum(one.right and by.get(one.request) != one.pid for one in self.answered)
        held = [(one, self._killer(one)) for one in self.lost]
        proven = [(one, killing) for one, killing in held if killing]
        begun = [(one, killing) for one, killing in proven if one.request in by]
        foreign = sum(by[one.request] != killing.pid for one, killing in begun)
        return [
            ("workers killed", len(self.killings), ""),
            ("... while they held a connection", sum(bool(k.ports) for k in self.killings), ""),
            ("requests", len(self.answered) + len(self.lost), ""),
            ("right replies", sum(one.right for one in self.answered), ""),
            ("wrong replies", sum(not one.right for one in self.answered), "0"),
            ("replies from a worker that did not begin the request", elsewhere, "0"),
            ("lost replies", len(self.lost), ""),
            ("... a killed worker had begun the request", len(begun), ""),
            ("... a killed worker held its connection, not begun", len(proven) - len(begun), ""),
            ("... no killed worker had it in its hands", len(self.lost) - len(proven), "0"),
            ("... begun by another worker than the killed one", foreign, "0"),
            ("... after waiting in vain", sum(o.how == "TimeoutError" for o in self.lost), "0"),
            ("requests begun twice", twice, "0"),
        ]

    def _killer(self, lost: Lost) -> Killing | None:
        """Return the killing of the worker that held a lost connection."""
        # The client may see the end of its connection before the clock is read here.
        known_by = lost.lost_at + 0.05
        for killing in self.killings:
            if lost.port in killing.ports and lost.opened_at <= killing.at <= known_by:
                return killing
        return None


def _measure(directory: Path, workers: int, kills: int, rate: float) -> Account:
    journals = directory / "journals"
    journals.mkdir()
    os.environ["BENCH_JOURNALS"] = str(journals)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    results: SimpleQueue[list[Answered | Lost]] = context.SimpleQueue()
    target = harness.TARGETS / "journal.py"
    with harness.serving(target, "--workers", str(workers), directory=directory) as server:
        loads = [Load(server.port, i % 2 == 0, 1 + i * 10**9, stop, results) for i in range(4)]
        processes = [
            context.Process(target=_ask_until_stopped, args=(load,), daemon=True) for load in loads
        ]
        for process in processes:
            process.start()
        try:
            harness.until("the load has begun", lambda: any(map(_size, journals.iterdir())))
            killings = _kill_many(server, kills, rate)
        finally:
            stop.set()
        collected = [result for _ in processes for result in results.get()]
        for process in processes:
            process.join()
        _check_pool(server, workers, kills)
    answered = [one for one in collected if isinstance(one, Answered)]
    lost = [one for one in collected if isinstance(one, Lost)]
    return Account(answered, lost, killings, _read_journals(journals))


def _size(path: Path) -> int:
    return path.stat().st_size


def _check_pool(server: harness.Server, workers: int, kills: int) -> None:
    """Raise BenchmarkError unless the pool is whole again, without a zombie, and every death was counted."""
    harness.until(
        "the pool is whole again",
        lambda: server.status()["tally"]["idle"] == workers == len(harness.children(server.pid)),
    )
    crashes = server.status()["counters"]["crashes"]
    if crashes != kills:
        raise harness.BenchmarkError(
            f"{kills} workers were killed, the server counted {crashes} crashes"
        )


def _faults(rows: Iterable[tuple[str, int, str]]) -> list[str]:
    return [what for what, number, goal in rows if goal and str(number) != goal]


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--kills", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=15, help="kills/s; default: %(default)s")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="linepool-bench-") as name:
        account = _measure(Path(name), options.workers, options.kills, options.rate)
    rows = account.rows()
    print(
        f"{options.kills} kill -9 of {options.workers} workers in {time.monotonic() - began:.0f} s,"
        f" 8 clients that keep their connection and 8 that do not; {harness.machine()}\n"
    )
    print(harness.table(["", "count", "must be"], rows))
    print("\nhow replies were lost:", dict(Counter(one.how for one in account.lost)))
    faults = _faults(rows)
    print("FAILED: " + "; ".join(faults) if faults else "OK")
    return 1 if faults else 0


if __name__ == "__main__":
    harness.main(_run)
