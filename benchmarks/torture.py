"""Kill, recycle and scale workers under load while many connections are parked; account for all.

Busy clients keep their connections. Half of them ask without a pause; the others are quiet for up to
150 ms between two requests, so that their connections are parked and handed on all the time. Now
and then three requests are sent at once. Every request has a number of its own that is never asked
twice, and the workers write down which began and which ended.

As in kills.py, each victim is stopped before it is killed, and the kernel is asked which connections
it holds: only requests on these may be lost. Idle connections have been quiet for a second when the
first worker is killed. Each is asked once at the end, all at the same time, and must answer.
"""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import os
import random
import resource
import selectors
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import harness
from attrs import define, field, fields, frozen

_REPLY_LIMIT = 20.0  # seconds; a reply that takes longer counts as lost
_QUIET_BEFORE = 1.0  # seconds that the idle connections are quiet before the first kill
_LONGEST_PAUSE = 0.15  # seconds; three times the time after which a connection is parked
_BURST = 3  # requests sent at once, one time in _BURST_ONE_IN
_BURST_ONE_IN = 8
_TICK = 0.005  # seconds between two looks at who has paused long enough
_RETRY_AFTER = 0.01  # seconds, if a connection could not be made
_SEEN_WITHIN = 2.0  # seconds; a client knows by then that its connection has died with a worker
_RECYCLE_LIMIT = 60.0  # seconds until enough workers have been recycled
_LEFT_LIMIT = 10.0  # seconds until the server has closed what its clients have closed
_IN_VAIN = "waited in vain"
_SHOWN = 20  # requests of which all is told, if a promise was broken
_IDLE_FIRST = 10**12  # the numbers of idle connections' requests begin here

# In /proc/net/tcp: ESTABLISHED, CLOSE_WAIT. What its server has closed is in another state, for a while.
_OPEN_STATES = {"01", "08"}


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


@frozen(kw_only=True)
class Plan:
    """What is done to the server."""

    scheme: str = "shared"
    workers: int = 4
    busy: int = 64
    idle: int = 1000
    kills: int = 100
    kill_rate: float = 6.0  # per second
    recycles: int = 50
    max_requests: int = 250
    scalings: int = 20

    def sizes(self) -> Iterator[int]:
        """Yield the sizes that the pool is scaled to, again and again."""
        return itertools.cycle(max(1, self.workers + step) for step in (2, -1, 1, -2, 0))


# Clients, in a process of their own.


@frozen
class _Load:
    server_port: int
    clients: int
    stop: Event
    results: Connection


@define
class _Client:
    """One client: a connection, and the requests on it that wait for replies, in their order."""

    port_of_server: int
    pauses: bool
    sock: socket.socket | None = None
    port: int = 0
    opened_at: float = 0.0
    waiting: collections.deque[int] = field(factory=collections.deque)
    asked_at: float = 0.0
    ask_at: float = 0.0
    received: bytes = b""
    results: list[Answered | Lost] = field(factory=list)

    def open(self, selector: selectors.BaseSelector, request: int) -> bool:
        """Connect; whoever cannot has lost a request."""
        self.opened_at = time.monotonic()
        try:
            self.sock = socket.create_connection(("127.0.0.1", self.port_of_server), _REPLY_LIMIT)
        except OSError as error:
            self.port = 0
            self.waiting.append(request)
            self.lose(selector, f"connect: {type(error).__name__}")
            return False
        self.port = self.sock.getsockname()[1]
        selector.register(self.sock, selectors.EVENT_READ, self)
        return True

    def ask(self, selector: selectors.BaseSelector, requests: Sequence[int]) -> None:
        """Send requests in one go."""
        if not self.sock and not self.open(selector, requests[0]):
            return
        assert self.sock
        self.waiting.extend(requests)
        self.asked_at = time.monotonic()
        try:
            self.sock.sendall(b"".join(b"WORK %d\n" % request for request in requests))
        except OSError as error:
            self.lose(selector, type(error).__name__)

    def read(self, selector: selectors.BaseSelector) -> None:
        """Take what has come."""
        assert self.sock
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            self.lose(selector, type(error).__name__)
            return
        if not data:
            self.lose(selector, "closed within a reply" if self.received else "closed")
            return
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            request = self.waiting.popleft() if self.waiting else -1
            self.results.append(judge(request, line))

    def lose(self, selector: selectors.BaseSelector, how: str) -> None:
        """Give the connection up, and all requests on it."""
        now = time.monotonic()
        self.results += [
            Lost(request, self.port, self.opened_at, now, how) for request in self.waiting
        ]
        self.waiting.clear()
        self.received = b""
        self.ask_at = now + _RETRY_AFTER
        if self.sock:
            selector.unregister(self.sock)
            self.sock.close()
            self.sock = None


def judge(request: int, line: bytes) -> Answered:
    """Return what a reply says, and whether it is the right one."""
    words = line.split()
    proof = sha256(b"%d" % request).hexdigest().encode()
    right = len(words) == 3 and words[0] == b"%d" % request and words[2] == proof
    return Answered(request, int(words[1]) if right else 0, right)


class _Crowd:
    """All busy clients."""

    def __init__(self, server_port: int, count: int, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._dice = random.Random(count)
        self._numbers = itertools.count(1)
        self.clients = [_Client(server_port, i % 2 == 1) for i in range(count)]

    def ask(self) -> None:
        """Let those ask who are not waiting and have paused long enough."""
        now = time.monotonic()
        for client in self.clients:
            if not client.waiting and now >= client.ask_at:
                count = 1 if self._dice.randrange(_BURST_ONE_IN) else _BURST
                client.ask(self._selector, list(itertools.islice(self._numbers, count)))

    def listen(self) -> None:
        """Read what comes within a moment."""
        for key, _ in self._selector.select(_TICK):
            client = key.data
            client.read(self._selector)
            if not client.waiting and client.pauses:
                client.ask_at = time.monotonic() + self._dice.uniform(0, _LONGEST_PAUSE)

    def wait(self) -> bool:
        """Give up those who have waited in vain; return whether others wait."""
        limit = time.monotonic() - _REPLY_LIMIT
        waiting = [client for client in self.clients if client.waiting]
        for client in waiting:
            if client.asked_at < limit:
                client.lose(self._selector, _IN_VAIN)
        return bool(waiting)


def _ask_until_stopped(load: _Load) -> None:
    """Run the busy clients, in a process of their own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is the parent's to handle
    with selectors.DefaultSelector() as selector:
        crowd = _Crowd(load.server_port, load.clients, selector)
        while not load.stop.is_set():
            crowd.ask()
            crowd.listen()
            crowd.wait()
        while crowd.wait():
            crowd.listen()
        for client in crowd.clients:
            if client.sock:
                client.sock.close()
    load.results.send([result for client in crowd.clients for result in client.results])


# Idle connections.


def open_idle(port: int, count: int) -> list[socket.socket]:
    """Open connections that say nothing.

    Raises:
        BenchmarkError: There are not enough descriptors.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count + 256 > hard:
        raise harness.BenchmarkError(f"{count} connections need more than {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 256), hard))
    return [socket.create_connection(("127.0.0.1", port), _REPLY_LIMIT) for _ in range(count)]


def _ask_idle(idle: Sequence[socket.socket]) -> list[Answered | Lost]:
    """Ask on all connections at once and close them."""
    results: list[Answered | Lost] = []
    began = time.monotonic()
    failed: dict[int, str] = {}
    for i, sock in enumerate(idle):
        try:
            sock.sendall(b"WORK %d\n" % (_IDLE_FIRST + i))
        except OSError as error:
            failed[i] = type(error).__name__
    for i, sock in enumerate(idle):
        request, port = _IDLE_FIRST + i, sock.getsockname()[1]
        with sock, sock.makefile("rb") as file:
            try:
                sock.settimeout(max(0.01, began + _REPLY_LIMIT - time.monotonic()))
                line = b"" if i in failed else file.readline()
            except OSError as error:
                line, failed[i] = b"", type(error).__name__
        if line.endswith(b"\n"):
            results.append(judge(request, line))
        else:
            how = failed.get(i, "closed")
            results.append(Lost(request, port, 0.0, time.monotonic(), how))
    return results


# What is done to the server.


def _tcp_table(server_port: int) -> Iterator[tuple[str, int, str]]:
    """Yield (state, client's port, inode) of the server's ends of its connections (proc(5))."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, _, _, _, _, _, inode, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == server_port:
            yield state, int(remote.rpartition(":")[2], 16), inode


def _connections_of(pid: int, server_port: int) -> frozenset[int]:
    """Return the clients' ports of the connections that a process holds."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        name = os.readlink(entry.path)
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    held = {port for _, port, inode in _tcp_table(server_port) if inode in inodes}
    return frozenset(held - {0})  # 0: the listener


def _held_connections(server_port: int) -> int:
    """Return how many connections the server has not closed."""
    return sum(state in _OPEN_STATES for state, _, _ in _tcp_table(server_port))


def _state(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[0]


def _has_stopped(pid: int) -> bool:
    """Whether no thread of a process runs."""
    return all(_state(task) in "TZX" for task in Path(f"/proc/{pid}/task").iterdir())


def _kill_one(server: harness.Server, dice: random.Random) -> Killing | None:
    """Kill a worker chosen by chance; None: it ended by itself meanwhile."""
    workers = [one["pid"] for one in server.status()["workers"] if one["state"] in ("idle", "busy")]
    if not workers:
        return None
    pid = dice.choice(workers)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if pid not in harness.children(server.pid):
            return None
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        harness.until("the worker stopped", lambda: _has_stopped(pid))
        ports = _connections_of(pid, server.port)
        at = time.monotonic()  # clients may know of the kill before this process runs again
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):  # it left by itself, the moment before
        return None
    finally:
        os.close(pidfd)
    return Killing(pid, at, ports)


def _scale(server: harness.Server, size: int) -> None:
    """Do what ``linepool scale`` does."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_REPLY_LIMIT)
        sock.connect(str(server.control))
        sock.sendall(b"SCALE %d\n" % size)
        reply = sock.makefile("rb").readline()
    if not reply.startswith(b"workers "):
        raise harness.BenchmarkError(f"SCALE {size}: {reply!r}")


def _torment(server: harness.Server, plan: Plan) -> list[Killing]:
    """Kill and scale, in turn and by chance, until workers enough were killed and recycled."""
    dice = random.Random(plan.kills)
    killings: list[Killing] = []
    sizes = plan.sizes()
    scaled = 0
    give_up_at = time.monotonic() + 20 + 10 * plan.kills / plan.kill_rate
    while len(killings) < plan.kills or scaled < plan.scalings:
        if time.monotonic() > give_up_at:
            raise harness.BenchmarkError(f"only {len(killings)} workers could be killed")
        if scaled * plan.kills <= len(killings) * plan.scalings and scaled < plan.scalings:
            _scale(server, next(sizes))
            scaled += 1
        if len(killings) < plan.kills and (killing := _kill_one(server, dice)):
            killings.append(killing)
        time.sleep(dice.uniform(0.5, 1.5) / plan.kill_rate)
    _scale(server, plan.workers)
    harness.until(
        f"{plan.recycles} workers were recycled",
        lambda: server.status()["counters"]["recycled"] >= plan.recycles,
        _RECYCLE_LIMIT,
    )
    return killings


def _wait_until_parked(server: harness.Server, plan: Plan) -> None:
    """Wait until the idle connections are where they are expected to be."""
    time.sleep(_QUIET_BEFORE)
    if plan.scheme != "accept":
        harness.until(
            "the idle connections are parked",
            lambda: server.status()["connections"]["parked"] >= plan.idle,
        )


def _wait_until_whole(server: harness.Server, plan: Plan) -> None:
    """Wait until the pool has its size again, without a zombie."""

    def whole() -> bool:
        tally = server.status()["tally"]
        zombies = [
            pid for pid in harness.children(server.pid) if _state(Path(f"/proc/{pid}")) == "Z"
        ]
        return tally["idle"] == tally["total"] == plan.workers and not zombies

    harness.until("the pool is whole again", whole)


def _count_left(server: harness.Server) -> int:
    """Return how many connections the server still holds, all clients having left."""
    give_up_at = time.monotonic() + _LEFT_LIMIT
    while (left := _held_connections(server.port)) and time.monotonic() < give_up_at:
        time.sleep(_TICK)
    return left


@frozen
class Journals:
    """(pid, request) for every request that a worker began, and for every one that it ended."""

    began: list[tuple[int, int]]
    ended: set[tuple[int, int]]

    @classmethod
    def read(cls, directory: Path) -> Journals:
        """Return what all workers have written."""
        began: list[tuple[int, int]] = []
        ended: set[tuple[int, int]] = set()
        for path in directory.iterdir():
            for line in path.read_text().split():
                note = (int(path.name), int(line[1:]))
                if line[0] == "+":
                    began.append(note)
                else:
                    ended.add(note)
        return cls(began, ended)


@frozen(kw_only=True)
class Account:
    """What became of all requests and connections."""

    busy: list[Answered | Lost]
    idle: list[Answered | Lost]
    idle_ports: frozenset[int]
    killings: list[Killing]
    journals: Journals
    counters: dict[str, int]
    scalings: int
    left: int
    parked: int

    def rows(self) -> list[tuple[str, int, str]]:
        """Return (what, how many, what it must be) for the table."""
        return [*self._deeds(), *self._replies(), *self._losses(), *self._rest()]

    def _deeds(self) -> list[tuple[str, int, str]]:
        return [
            ("workers killed", len(self.killings), ""),
            ("... while they held a connection", sum(bool(k.ports) for k in self.killings), ""),
            ("workers recycled", self.counters["recycled"], ""),
            ("times scaled up or down", self.scalings, ""),
            ("workers that died besides", self._died_besides(), "0"),
        ]

    def _died_besides(self) -> int:
        # One that was killed while it left may not be counted by the server.
        return max(0, self.counters["crashes"] - len(self.killings))

    def _replies(self) -> list[tuple[str, int, str]]:
        answered = [one for one in self.busy + self.idle if isinstance(one, Answered)]
        right = [one for one in answered if one.right]
        began, ended = set(self.journals.began), self.journals.ended
        elsewhere = sum((one.pid, one.request) not in began for one in right)
        early = sum((one.pid, one.request) not in ended for one in right)
        return [
            ("requests", len(self.busy) + len(self.idle), ""),
            ("right replies", len(right), ""),
            ("wrong replies", len(answered) - len(right), "0"),
            ("replies from a worker that did not begin the request", elsewhere, "0"),
            ("replies from a worker that did not end the request", early, "0"),
        ]

    def _losses(self) -> list[tuple[str, int, str]]:
        by = {request: pid for pid, request in self.journals.began}
        lost = [one for one in self.busy if isinstance(one, Lost)]
        proven = [one for one in lost if self._killers(one)]
        begun = [one for one in proven if one.request in by]
        foreign = sum(self._is_foreign(one, by[one.request]) for one in begun)
        return [
            ("lost replies of busy clients", len(lost), ""),
            ("... a killed worker had begun the request", len(begun), ""),
            ("... a killed worker held its connection, not begun", len(proven) - len(begun), ""),
            ("... no killed worker held its connection", len(lost) - len(proven), "0"),
            ("... begun by another worker than the killed one", foreign, "0"),
            ("... after waiting in vain", sum(o.how == _IN_VAIN for o in lost), "0"),
        ]

    def _rest(self) -> list[tuple[str, int, str]]:
        began = Counter(request for _, request in self.journals.began)
        killed = {killing.pid for killing in self.killings}
        cut = sum(
            (pid, request) not in self.journals.ended and pid not in killed
            for pid, request in self.journals.began
        )
        return [
            ("requests begun twice", sum(count - 1 for count in began.values()), "0"),
            ("requests cut off in a worker that was not killed", cut, "0"),
            ("idle connections", len(self.idle), ""),
            ("... parked before the first kill, by the status", self.parked, ""),
            ("... in the hands of a worker when it was killed", self._idle_in_hands(), ""),
            ("... dropped", sum(isinstance(one, Lost) for one in self.idle), "0"),
            ("connections held after all clients have left", self.left, "0"),
        ]

    def details(self) -> list[str]:
        """Return what is known of each request that should not have been lost, or begun, so."""
        began: dict[int, list[int]] = {}
        for pid, request in self.journals.began:
            began.setdefault(request, []).append(pid)
        suspects = {request for request, pids in began.items() if len(pids) > 1}
        for one in self.busy:
            if isinstance(one, Lost):
                begun_by = began.get(one.request, [])
                if not self._killers(one) or any(self._is_foreign(one, pid) for pid in begun_by):
                    suspects.add(one.request)
        suspects |= {one.request for one in self.idle if isinstance(one, Lost)}
        outcomes = {one.request: one for one in self.busy + self.idle}
        return [
            f"{outcomes.get(request)}, begun by {self._fates(request, began.get(request, []))}"
            for request in sorted(suspects)
        ]

    def _fates(self, request: int, pids: Sequence[int]) -> str:
        killed = {killing.pid: killing.at for killing in self.killings}
        return ", ".join(
            f"{pid} ({'ended' if (pid, request) in self.journals.ended else 'not ended'}"
            f"{f', killed at {killed[pid]}' if pid in killed else ''})"
            for pid in pids
        )

    def _idle_in_hands(self) -> int:
        return sum(len(killing.ports & self.idle_ports) for killing in self.killings)

    def _killers(self, lost: Lost) -> list[int]:
        """Return the workers that were killed with a lost connection in their hands."""
        # More than one, if the first had handed it on and not yet let it go.
        return [
            killing.pid
            for killing in self.killings
            if lost.port in killing.ports
            and lost.opened_at <= killing.at
            and killing.at <= lost.lost_at <= killing.at + _SEEN_WITHIN
        ]

    def _is_foreign(self, lost: Lost, begun_by: int) -> bool:
        """Whether a lost request was begun by a worker that had not its connection when killed."""
        killers = self._killers(lost)
        return bool(killers) and begun_by not in killers


def measure(plan: Plan, directory: Path) -> Account:
    """Start a server, do to it what is planned, and account for everything."""
    journals = directory / "journals"
    journals.mkdir()
    os.environ["BENCH_JOURNALS"] = str(journals)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    results, told = context.Pipe(duplex=False)
    options = ["--scheme", plan.scheme, "--workers", str(plan.workers)]
    options += ["--max-requests", str(plan.max_requests)]
    target = harness.TARGETS / "torture_journal.py"
    with harness.serving(target, *options, directory=directory) as server:
        idle = open_idle(server.port, plan.idle)
        ports = frozenset(sock.getsockname()[1] for sock in idle)
        _wait_until_parked(server, plan)
        parked = server.status()["connections"]["parked"]
        load = _Load(server.port, plan.busy, stop, told)
        process = context.Process(target=_ask_until_stopped, args=(load,), daemon=True)
        process.start()
        try:
            harness.until("the load has begun", lambda: _size_of(journals))
            killings = _torment(server, plan)
        finally:
            stop.set()
        if not results.poll(_REPLY_LIMIT + 10):
            raise harness.BenchmarkError("the clients do not come to an end")
        busy: list[Answered | Lost] = results.recv()
        process.join()
        asked = _ask_idle(idle)
        left = _count_left(server)
        _wait_until_whole(server, plan)
        counters = server.status()["counters"]
    return Account(
        busy=busy,
        idle=asked,
        idle_ports=ports,
        killings=killings,
        journals=Journals.read(journals),
        counters=counters,
        scalings=plan.scalings,
        left=left,
        parked=parked,
    )


def _size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def report(plan: Plan) -> list[str]:
    """Measure, print the table, and return the promises that were broken."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="linepool-bench-") as name:
        account = measure(plan, Path(name))
    rows = account.rows()
    print(
        f"Scheme {plan.scheme}, {plan.workers} workers, {plan.busy} busy and {plan.idle} idle"
        f" connections, {time.monotonic() - began:.0f} s; {harness.machine()}\n"
    )
    print(harness.table(["", "count", "must be"], rows))
    hows = Counter(one.how for one in account.busy + account.idle if isinstance(one, Lost))
    print(f"\nHow replies were lost: {dict(hows) or 'none was'}.")
    details = account.details()
    if details:
        print("\n".join(["", *details[:_SHOWN]]))
    return [f"{what}: {number}" for what, number, goal in rows if goal and str(number) != goal]


def _run() -> int:
    parser = harness.parser(__doc__)
    for one in fields(Plan):
        parser.add_argument(
            f"--{one.name.replace('_', '-')}",
            type=type(one.default),
            default=one.default,
            help="default: %(default)s",
        )
    faults = report(Plan(**vars(parser.parse_args())))
    print("FAILED: " + "; ".join(faults) if faults else "OK")
    return 1 if faults else 0


if __name__ == "__main__":
    harness.main(_run)
