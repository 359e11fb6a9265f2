"""What happens to the clients of a server: one trial for each question, on a server of its own."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from attrs import field, frozen

from benchmarks import harness, load, meter
from benchmarks.comparisons.contenders import Contender, Running
from benchmarks.comparisons.crowd import Crowd, Outcome
from benchmarks.comparisons.wires import Client, FailedError, SocketClient

_Found = TypeVar("_Found")
CLIENTS = 8
RATE = 10.0  # requests per second of each client
BUSY_RATE = 5.0  # the same, where each request waits
TIMES = 3
CONNECTIONS = 16  # that ask for as much as they can get
_QUICK = ("COLLATZ", 27)
_WORK_S, _BUSY_S = 0.02, 0.05  # seconds that a request waits
_STALL_S = 1.5  # seconds that requests wait for a database that stalls
_WARM_UP_S = 1.0  # a pool that grows has started its workers by then
_SERVED_LIMIT = 15.0  # seconds
_READ_LIMIT = 2.0  # seconds, for what the client of a crash reads
_STILL_S = 0.5  # seconds
_STILL_COMPUTES = 0.05  # processors; an idle server uses next to none


@frozen(kw_only=True)
class Pace:
    """How long the parts of a trial take, in seconds.

    Attributes:
        calm: Before and after what happens.
        watch: After a request that never ends.
        plain: Of full load.
    """

    calm: float = 1.0
    watch: float = 5.0
    plain: float = 1.5


SHORT = Pace(calm=0.3, watch=3.0, plain=0.5)


@frozen(kw_only=True)
class Speed:
    """Requests at full load."""

    rps: float
    cpu_us: float


@frozen(kw_only=True)
class Hang:
    """What one request that never ends does.

    Attributes:
        others: What became of the requests of other clients.
        reads: What its own client reads.
        computes: Whether the server still computes when all clients have left.
    """

    others: Outcome
    reads: str
    computes: bool


@frozen(kw_only=True)
class Crash:
    """What the crash of one process does; ``served_after`` in seconds."""

    others: Outcome
    reads: str
    served_after: float


@frozen(kw_only=True)
class Deployment:
    """What new code costs; ``took`` in seconds, until a new connection is served by it."""

    others: Outcome
    took: float


@frozen(kw_only=True)
class Size:
    """Processes and threads."""

    processes: int
    threads: int


@frozen(kw_only=True)
class Growth:
    """The same requests at a rate and at three times this rate."""

    before: Outcome
    during: Outcome
    size_before: Size
    size_during: Size


@frozen(kw_only=True)
class Report:
    """All that was measured of one server; None: it cannot do that."""

    contender: Contender
    speed: Speed
    hang: Hang
    stall: Outcome | None
    crash: Crash
    deployment: Deployment
    growth: Growth
    version: str = field(default="")


@contextlib.contextmanager
def running(contender: Contender) -> Iterator[Running]:
    """Run a server while the block runs; a failure shows the end of its log."""
    with tempfile.TemporaryDirectory() as name:
        server = Running(contender, Path(name))
        try:
            server.wait()
            yield server
        except Exception as error:
            lines = server.program.log.read_text(errors="replace").splitlines()[-10:]
            error.add_note(f"the end of the log of {contender.title}:\n  " + "\n  ".join(lines))
            raise
        finally:
            server.close()


def measure(contender: Contender, pace: Pace, note: Callable[[str], None]) -> Report:
    """Return all that is measured of a server.

    Args:
        contender: The server.
        pace: How long the parts take.
        note: Is called with the name of each trial.
    """

    def tried(trial: Callable[[Running, Pace], _Found]) -> _Found:
        note(trial.__name__)
        with running(contender) as server:
            return trial(server, pace)

    return Report(
        contender=contender,
        version=contender.version(),
        speed=tried(speed),
        hang=tried(hang),
        stall=tried(stall) if contender.can_wait else None,
        crash=tried(crash),
        deployment=tried(deployment),
        growth=tried(growth),
    )


def speed(server: Running, pace: Pace) -> Speed:
    """Ask for as much as the server gives."""
    before = meter.cpu_seconds(server.program.pid)
    if server.contender.load.request:
        samples: dict[str, float] = {}

        def on_phase(name: str) -> None:
            samples[name] = meter.cpu_seconds(server.program.pid)

        figures = load.run(server.port, _load(server, pace), on_phase)
        cpu = samples["end"] - samples["measure"]
        return Speed(rps=figures.rps, cpu_us=cpu / max(figures.answered, 1) * 1e6)
    crowd = Crowd(server.connect, CONNECTIONS, 1e6, ("COLLATZ", 6))
    time.sleep(pace.plain)
    answered = crowd.stop().answered
    cpu = meter.cpu_seconds(server.program.pid) - before
    return Speed(rps=answered / pace.plain, cpu_us=cpu / max(answered, 1) * 1e6)


def _load(server: Running, pace: Pace) -> load.Load:
    plain = server.contender.load
    reply, length = plain.reply, 0
    if plain.reply_prefix:  # a reply with a date, which differs from time to time
        client = server.connect()
        assert isinstance(client, SocketClient)
        with contextlib.closing(client):
            client.ask(_READ_LIMIT, "COLLATZ", 6)
            length, reply = client.received, ""
    return load.Load(
        connections=CONNECTIONS,
        seconds=pace.plain,
        warm_up=_WARM_UP_S,
        mode=plain.mode,
        request=plain.request,
        reply=reply,
        reply_bytes=length,
        reply_prefix=plain.reply_prefix,
    )


def _work(contender: Contender, seconds: float) -> tuple[object, ...]:
    return ("SLEEP", seconds) if contender.can_wait else _QUICK


class _Victim:
    """A client of which one request matters, in a thread of its own."""

    def __init__(self, client: Client, limit: float, *request: object) -> None:
        command, *arguments = request
        self.reads = f"nothing in {limit:g} s"
        self._client = client
        self._ask: tuple[float, str, *tuple[object, ...]] = (limit, str(command), *arguments)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.reads = f"`{self._client.ask(*self._ask)}`"
        except FailedError as failure:
            self.reads = str(failure)

    def finish(self) -> str:
        """Return what the client reads, at the latest when its time is up."""
        self._thread.join()
        self._client.close()
        return self.reads


def hang(server: Running, pace: Pace) -> Hang:
    """Send one request that never ends."""
    crowd = Crowd(server.connect, CLIENTS, RATE, _QUICK)
    time.sleep(pace.calm)
    victim = _Victim(server.connect(), server.contender.asks_for or pace.watch, "COLLATZ", 0)
    time.sleep(pace.watch)
    others = crowd.stop()
    reads = victim.finish()
    before = meter.cpu_seconds(server.program.pid)
    time.sleep(_STILL_S)
    used = (meter.cpu_seconds(server.program.pid) - before) / _STILL_S
    return Hang(others=others, reads=reads, computes=used > _STILL_COMPUTES)


def stall(server: Running, pace: Pace) -> Outcome:
    """Have as many requests as there are clients wait at once, as when a database stalls."""
    crowd = Crowd(server.connect, CLIENTS, RATE, _QUICK)
    time.sleep(pace.calm)
    waiting = [_Victim(server.connect(), 30.0, "SLEEP", _STALL_S) for _ in range(CLIENTS)]
    for victim in waiting:
        victim.finish()
    time.sleep(pace.calm)
    return crowd.stop()


def crash(server: Running, pace: Pace) -> Crash:
    """Crash the process that serves one request, or kill it from outside."""
    crowd = Crowd(server.connect, CLIENTS, RATE, _work(server.contender, _WORK_S))
    time.sleep(pace.calm)
    began = time.monotonic()
    if server.contender.can_wait:
        victim = _Victim(server.connect(), _READ_LIMIT, "CRASH")
    else:
        victim = _Victim(server.connect(), _READ_LIMIT, "COLLATZ", 0)
        time.sleep(0.1)  # so that the request is being served
        began = time.monotonic()
        server.kill()
    reads = victim.finish()
    harness.until("it serves again", lambda: server.revived() and server.probe(), _SERVED_LIMIT)
    served_after = time.monotonic() - began
    time.sleep(pace.calm)
    return Crash(others=crowd.stop(), reads=reads, served_after=served_after)


def deployment(server: Running, pace: Pace) -> Deployment:
    """Bring new code while clients send requests."""
    crowd = Crowd(server.connect, CLIENTS, RATE, _work(server.contender, _WORK_S))
    time.sleep(pace.calm)
    server.write_version(2)
    began = time.monotonic()
    server.contender.deploy(server)
    harness.until("the new code serves", lambda: server.probe() == "2", _SERVED_LIMIT)
    took = time.monotonic() - began
    time.sleep(pace.calm)
    return Deployment(others=crowd.stop(), took=took)


def growth(server: Running, pace: Pace) -> Growth:
    """Send requests that wait at a rate, then at three times the rate, from three times the clients."""
    request = _work(server.contender, _BUSY_S)
    outcomes, sizes = [], []
    warm_up = Crowd(server.connect, CLIENTS, BUSY_RATE, request)
    time.sleep(2 * pace.calm)
    warm_up.stop()
    for clients in (CLIENTS, TIMES * CLIENTS):
        crowd = Crowd(server.connect, clients, BUSY_RATE, request)
        time.sleep(2 * pace.calm)
        sizes.append(_size(server.program.pid))
        outcomes.append(crowd.stop())
    before, during = outcomes
    return Growth(before=before, during=during, size_before=sizes[0], size_during=sizes[1])


def _size(pid: int) -> Size:
    pids = meter.tree(pid)
    threads = 0
    for one in pids:
        with contextlib.suppress(OSError):  # it has ended
            threads += len(list(Path(f"/proc/{one}/task").iterdir()))
    return Size(processes=len(pids), threads=threads)
