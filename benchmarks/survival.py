"""What servers survive: death of workers and master, requests that hang, reloads; beside others.

Each server has four workers, if it has such, that serve the same sum, over its own protocol, with the time
limit for requests that its documentation gives. Clients open a connection for each request, so
that keep-alive plays no part. A request fails if its client was connected and got no right reply.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attrs import Factory, define

from benchmarks import harness
from benchmarks.survivors import LIMIT, WORKERS, Contender, HAProxy, contenders

_CLIENTS = 4
_PAUSE = 0.005  # seconds between two requests of a client
_BETWEEN = 0.2  # seconds between two kills
_REPLY_LIMIT = 15.0  # seconds
_GONE_LIMIT = 5.0  # seconds that processes have to end after their master
_HEADINGS = (
    "server",
    "worker killed: requests failed",
    "request hangs: it ends after",
    "its client reads",
    "requests of others failed",
    "master killed: processes left",
    "started again at once",
    "reload: requests failed",
)


class Run:
    """A server that runs."""

    def __init__(self, contender: Contender, directory: Path) -> None:
        self.contender = contender
        self.directory = directory
        self.port = harness.free_port()
        self.program = self._start()

    def _start(self) -> harness.Program:
        arguments = self.contender.arguments(self.port, self.directory)
        return harness.Program(arguments, self.directory / "log", cwd=self.directory)

    def until_up(self) -> None:
        """Wait until all workers are up."""
        harness.until("it answers", lambda: self.ask(1, 2) == "")
        harness.until("all workers are up", self.is_complete)

    def is_complete(self) -> bool:
        """Whether all workers are up."""
        return len(self.workers()) >= self.contender.workers_wanted

    def restart(self) -> bool:
        """Start it again on the same address; return whether that went well."""
        self.program = self._start()
        with contextlib.suppress(harness.BenchmarkError):
            self.until_up()
            return self.program.is_running
        return False

    def workers(self) -> list[int]:
        """Return the pids of the workers."""
        return self.contender.workers(self.program.pid, self.directory)

    def ask(self, a: int, b: int) -> str:
        """Ask for a sum; return "" for the right one, "refused", or how the request failed."""
        try:
            sock = socket.create_connection(("127.0.0.1", self.port), 5)
        except OSError:
            return "refused"
        received = self.converse(sock, self.contender.request(a, b))
        if self.contender.is_right(received, a + b):
            return ""
        return "error" if received else "no reply"

    def converse(self, sock: socket.socket, request: bytes) -> bytes:
        """Send a request; return what comes back."""
        received = b""
        with sock, contextlib.suppress(OSError):
            sock.settimeout(_REPLY_LIMIT)
            sock.sendall(request)
            while not self.contender.is_whole(received) and (data := sock.recv(65536)):
                received += data
        return received


@define
class Load:
    """Clients that ask for sums until the block ends."""

    run: Run
    asked: int = 0
    outcomes: Counter[str] = Factory(Counter)
    _lock: threading.Lock = Factory(threading.Lock)

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Have the clients at work."""
        over = threading.Event()
        threads = [threading.Thread(target=self._client, args=(over, i)) for i in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _client(self, over: threading.Event, number: int) -> None:
        while not over.wait(_PAUSE):
            number += _CLIENTS
            how = self.run.ask(number, 100_000)
            with self._lock:
                self.asked += how != "refused"
                self.outcomes[how] += 1

    def failed(self) -> str:
        """Return how many requests failed, of how many."""
        return f"{self.asked - self.outcomes['']} of {self.asked}"


def _kill_workers(run: Run, kills: int, rng: random.Random) -> str:
    if not run.contender.workers_wanted:
        return "-"
    ended = 0
    with Load(run).running() as load:
        time.sleep(_BETWEEN)
        for _ in range(kills):
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(rng.choice(run.workers()), signal.SIGKILL)
            time.sleep(_BETWEEN)
            if not run.program.is_running:
                ended += 1
                if not run.restart():
                    raise harness.BenchmarkError("it does not start any more")
        harness.until("all workers are up", run.is_complete)
    return load.failed() + (f", it ended {ended} times" if ended else "")


def _hang(run: Run, count: int) -> tuple[str, str, str]:
    """Return after how long requests end that hang, what their clients read, and what others lost."""
    times: list[float] = []
    read: Counter[str] = Counter()
    with Load(run).running() as load:
        for _ in range(count):
            began = time.monotonic()
            sock = socket.create_connection(("127.0.0.1", run.port), 5)
            with _unhung(run):
                received = run.converse(sock, run.contender.hang())
            times.append(time.monotonic() - began)
            read["an error" if received else "nothing"] += 1
    after = "never" if run.contender.unhang else f"{statistics.median(times):.1f} s"
    return after, " / ".join(read), load.failed()


@contextlib.contextmanager
def _unhung(run: Run) -> Iterator[None]:
    """Have another client end what hangs after twice its time limit, if nothing else does."""
    timer = threading.Timer(2 * LIMIT, _send, [run, run.contender.unhang])
    if run.contender.unhang:
        timer.start()
    yield
    timer.cancel()


def _send(run: Run, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", run.port), 5) as sock:
        run.converse(sock, request)


def _kill_master(run: Run) -> tuple[str, str]:
    """Return how many processes a killed master leaves, and whether it can be started again at once."""
    pidfds = [os.pidfd_open(pid) for pid in harness.children(run.program.pid)]
    os.kill(run.program.pid, signal.SIGKILL)
    give_up_at = time.monotonic() + _GONE_LIMIT
    harness.until("the master has ended", lambda: not run.program.is_running)
    restarted = run.restart()
    left = 0
    for pidfd in pidfds:
        left += not select.select([pidfd], [], [], max(0.0, give_up_at - time.monotonic()))[0]
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    if not restarted and not run.restart():
        raise harness.BenchmarkError("it does not start any more")
    return str(left), "yes" if restarted else "no"


def _reload(run: Run, reloads: int) -> str:
    number = run.contender.reload
    if number is None:
        return "-"
    with Load(run).running() as load:
        for _ in range(reloads):
            time.sleep(_BETWEEN)
            old = set(run.workers())
            os.kill(run.program.pid, number)
            harness.until("all workers are new", lambda old=old: _are_new(run, old), 60)  # type: ignore[misc]
        time.sleep(_BETWEEN)
    return load.failed()


def _are_new(run: Run, old: set[int]) -> bool:
    now = set(run.workers())
    return len(now) >= run.contender.workers_wanted and not now & old


def _measure(contender: Contender, options: object, directory: Path) -> tuple[str, ...]:
    run = Run(contender, directory)
    numbers = vars(options)
    try:
        run.until_up()
        killed = _kill_workers(run, numbers["kills"], random.Random(numbers["seed"]))
        hung = _hang(run, numbers["hangs"])
        dead = _kill_master(run)
        return (contender.name, killed, *hung, *dead, _reload(run, numbers["reloads"]))
    finally:
        run.program.stop()
        if isinstance(contender, HAProxy):
            contender.close()


def _run() -> int:
    parser = harness.parser(__doc__)
    text = "default: %(default)s"
    parser.add_argument("--kills", type=harness.at_least_one, default=30, help=text)
    parser.add_argument("--hangs", type=harness.at_least_one, default=5, help=text)
    parser.add_argument("--reloads", type=harness.at_least_one, default=5, help=text)
    parser.add_argument("--seed", type=int, default=1, help=text)
    parser.add_argument("--only", nargs="+", metavar="SERVER", help="names, such as gunicorn")
    options = parser.parse_args()
    rows = []
    notes = []
    for contender in contenders():
        if options.only and contender.name not in options.only:
            continue
        if missing := contender.missing():
            print(f"left out: {contender.name} needs {missing}", file=sys.stderr)
            continue
        print(f"{contender.name} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory() as name:
            row = _measure(contender, options, Path(name))
        rows.append((f"{contender.name} ({contender.settings})", *row[1:]))
        notes += [contender.notes] if contender.notes else []
    print(
        f"{options.kills} workers killed, {options.hangs} requests that hang, {options.reloads} reloads;"
        f" {WORKERS} workers, {_CLIENTS} clients; {harness.machine()}, load {os.getloadavg()[0]:.1f}\n"
    )
    print(harness.table(_HEADINGS, rows))
    print("".join(f"\n{note}." for note in notes))
    return 0


if __name__ == "__main__":
    harness.main(_run)
