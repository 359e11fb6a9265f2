"""What all experiments share: a load in its own process, a server, kills, and the look before and after."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import Factory, define, frozen

from linepool.testing import Peer
from tests.certificates import Authority
from tests.servers import ROOT, TIMEOUT, ServerProcess, has_ended
from tests.torture import proc
from tests.torture.experiments.account import Journals, Kill, Report
from tests.torture.experiments.generator import REPLY_LIMIT, Plan, Request, judged, plan_line

APP = Path(__file__).parents[1] / "experiment_app.py"
WORKERS = 4
_OPTIONS = ("--poison-deaths", "0")  # no command is to blame for the kills
OWN_NUMBERS = 10**9
"""The first number of the requests that an experiment sends itself."""
_PID_FILE = Path("/proc/sys/kernel/ns_last_pid")


@define
class Load:
    """The process with the clients."""

    process: subprocess.Popen[str]
    refused: int = 0
    closed: int = 0

    def start(self, plan: Plan) -> None:
        """Have the clients begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(plan_line(plan))
        self.process.stdin.flush()

    def finish(self) -> list[Request]:
        """Stop sending, wait for the replies that are due, and return what became of all requests."""
        output, _ = self.process.communicate(timeout=REPLY_LIMIT + 600)
        found = json.loads(output)
        self.refused, self.closed = found["refused"], found["closed"]
        return [Request(*one) for one in found["requests"]]


@frozen
class Size:
    """How large an experiment is."""

    name: str
    factor: int = 1
    seconds: float = 0.0

    def pick(self, small: int, normal: int) -> int:
        """Return one of two numbers; the second one times the factor."""
        return small if self.name == "small" else normal * self.factor


@define
class Ground:
    """The place of one experiment.

    Attributes:
        variant: How the experiment is extended, a word.
        stack: What is undone at its end.
        taken: Requests that a worker had taken that was killed, or whose time limit had passed.
    """

    directory: Path
    report: Report
    size: Size
    scheme: str
    variant: str
    stack: contextlib.ExitStack
    kills: list[Kill] = Factory(list)
    own: list[Request] = Factory(list)
    taken: set[int] = Factory(set)
    _descriptors: dict[str, int] = Factory(dict)
    _counted: dict[Path, tuple[int, int]] = Factory(dict)

    @property
    def rng(self) -> random.Random:
        """Luck that is the same for the same seed."""
        return self._rng

    _rng: random.Random = Factory(lambda self: random.Random(self.report.seed), takes_self=True)

    @property
    def journals(self) -> Path:
        """The directory of the journals."""
        path = self.directory / "journals"
        path.mkdir(exist_ok=True)
        return path

    # -- processes

    def load(self) -> Load:
        """Start the process of the clients; call it before the server is started."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.torture.experiments.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.stack.callback(_end, process)
        return Load(process)

    @property
    def wraps(self) -> bool:
        """Whether something comes ahead of the first request of each connection."""
        return self.variant in ("tls", "proxied")

    def plan(self, server: ServerProcess, *, each: int = 0, **more: Any) -> Plan:
        """Return a plan for clients of a server, as the variant of the experiment wants them.

        What begins with TLS stays in its worker, which ends the connection when it leaves, so its clients
        open a connection for each request.
        """
        is_tls = self.variant == "tls"
        return Plan(
            address=server.address,
            each=1 if is_tls else each,
            bursts=not is_tls,
            authority=str(self.directory / "ca.pem") if is_tls else "",
            proxied=self.variant == "proxied",
            seed=self.report.seed,
            **more,
        )

    def _variant_options(self) -> tuple[str, ...]:
        if self.variant == "tls":
            certificate = Authority(self.directory).certificate("server", "DNS:localhost")
            return ("--tls-cert", str(certificate))
        return ("--proxy-from", "127.0.0.1") if self.variant == "proxied" else ()

    def serve(self, *options: str, workers: int = WORKERS, **more: Any) -> ServerProcess:
        """Start a server of the app; further arguments are those of ``ServerProcess``."""
        environment = {"JOURNALS": str(self.journals), **more.pop("environment", {})}
        if self.variant == "pure":
            environment["LINEPOOL_PURE"] = "1"
        server = ServerProcess(
            self.directory,
            more.pop("target", APP),
            *("--workers", str(workers), *_OPTIONS, *self._variant_options(), *options),
            environment=environment,
            scheme=self.scheme,
            **more,
        )
        return self.stack.enter_context(server)

    # -- waiting

    def await_requests(self, count: int) -> None:
        """Wait until the workers have begun so many further requests."""
        goal = self._begun() + count
        self.until(lambda: self._begun() >= goal, f"{count} further requests begun")

    def _begun(self) -> int:
        for (
            path
        ) in self.journals.iterdir():  # they only grow, and in a soak to hundreds of megabytes
            read, begun = self._counted.get(path, (0, 0))
            with path.open("rb") as journal:
                journal.seek(read)
                news = journal.read()
            self._counted[path] = read + len(news), begun + news.count(b"+")
        return sum(begun for _, begun in self._counted.values())

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until a condition holds; there is a limit only to fail."""
        give_up_at = time.monotonic() + TIMEOUT
        while not holds():
            assert time.monotonic() < give_up_at, f"it did not come to this: {what}"
            select.select([], [], [], 0.005)

    def until_whole(
        self, server: ServerProcess, spawned: int, size: int = WORKERS
    ) -> dict[str, Any]:
        """Wait until so many workers were spawned since the start, and all that are wanted are up."""
        return server.until(lambda state: is_whole(state, spawned, size))

    # -- kills

    def kill(
        self, server: ServerProcess, pid: int, number: signal.Signals = signal.SIGKILL
    ) -> Kill | None:
        """Kill a worker after asking the kernel which connections it holds; None: it had ended before."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            self.until(lambda: proc.has_stopped(pid), "the worker has stopped")
            kill = Kill(pid, time.monotonic(), proc.client_ports(pid, server.port))
            signal.pidfd_send_signal(pidfd, number)
            if number != signal.SIGKILL:
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            assert has_ended(pidfd), f"signal {number} did not end the worker"
        except (ProcessLookupError, FileNotFoundError):
            return None
        finally:
            os.close(pidfd)
        self.kills.append(kill)
        return kill

    def note_stuck(self, server: ServerProcess, command: str) -> frozenset[int]:
        """Note the kill that awaits the worker in which a command hangs; return the ports that it holds.

        Pre-condition: Nothing else runs in that worker, so that it neither takes connections nor gives
        them away.
        """

        def stuck(state: dict[str, Any]) -> list[int]:
            return [one["pid"] for one in state["workers"] if one["command"] == command]

        (pid,) = stuck(server.until(stuck))
        ports = [proc.client_ports(pid, int(one.rpartition(":")[2])) for one in server.addresses]
        self.kills.append(Kill(pid, time.monotonic(), frozenset[int]().union(*ports)))
        return self.kills[-1].ports or frozenset()

    def wish_pid(self, pid: int) -> bool:
        """Have the kernel give the next process this pid, if that is possible here."""
        try:
            _PID_FILE.write_text(str(pid - 1))
        except OSError:
            return False
        return True

    # -- requests of the experiment itself

    def next_number(self) -> int:
        """Return the number of the next request that the experiment sends itself."""
        return OWN_NUMBERS + len(self.own)

    def note(self, number: int, peer: Peer | socket.socket, line: str, sent_at: float) -> Request:
        """Note what became of a request that the experiment sent itself; an empty line: it was lost."""
        sock = peer.socket if isinstance(peer, Peer) else peer
        name = sock.getsockname() if sock.fileno() >= 0 else ""
        how, worker = judged(number, line.encode()) if line else ("closed", "")
        port = name[1] if isinstance(name, tuple) else 0
        request = Request(number, how, worker, port, 0.0, sent_at, time.monotonic())
        self.own.append(request)
        return request

    def ask(self, peer: Peer, command: str = "WORK") -> Request:
        """Send a request and wait for its reply, or for the end of the connection."""
        number, sent_at = self.next_number(), time.monotonic()
        line = ""
        with contextlib.suppress(OSError):
            line = peer.ask(f"{command} {number}")
        return self.note(number, peer, line, sent_at)

    # -- idle connections

    @contextlib.contextmanager
    def parked(self, server: ServerProcess, count: int) -> Iterator[list[Peer]]:
        """Have idle connections in the parker; at the end each is asked once, and all must reply."""
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(server.connect()) for _ in range(count)]
            server.until(lambda state: state["connections"]["parked"] >= count)
            yield peers
            replies = [self.ask(peer) for peer in peers]
            self.report.check("idle connections dropped", sum(not one.is_right for one in replies))
            self.report.figures["idle"] = count

    # -- before and after

    def look(self, server: ServerProcess) -> None:
        """Note how many descriptors master and parker have; nothing may be under way."""
        self._descriptors = descriptors(server)

    def look_again(self, server: ServerProcess) -> None:
        """Compare descriptors with before, and check that no zombie and no connection is left."""

        now: dict[str, int] = {}

        def same() -> bool:
            now.update(descriptors(server))  # that of the question itself may be among them
            return all(now[name] <= count for name, count in self._descriptors.items())

        server.until(lambda state: state["connections"] == {"hot": 0, "parked": 0})
        with contextlib.suppress(AssertionError):  # the check says it
            self.until(lambda: same() and not zombies(server), "descriptors as before, no zombies")
        more = {name: now[name] - count for name, count in self._descriptors.items()}
        self.report.check(
            "descriptors more than before", sum(max(0, count) for count in more.values())
        )
        self.report.check("zombies", zombies(server))

    def account(self, requests: Sequence[Request]) -> None:
        """Put all requests into the report, those of the experiment itself too."""
        journals = Journals.read(self.journals)
        self.report.add([*requests, *self.own], journals, self.kills, self.taken)

    def innocent(self, server: ServerProcess, expected: int = 0) -> None:
        """Check that no worker died or was killed but those that the experiment ended."""
        counters = server.status()["counters"]
        died = counters["kills"] + counters["crashes"]
        self.report.check("innocent workers killed", max(0, died - expected))


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def is_whole(state: dict[str, Any], spawned: int, size: int) -> bool:
    """Whether so many workers were spawned since the start, and all that are wanted are up."""
    tally = state["tally"]
    is_up = tally["idle"] + tally["busy"] == tally["total"] == size
    return is_up and int(state["counters"]["spawned"]) >= spawned


def descriptors(server: ServerProcess) -> dict[str, int]:
    """Return how many descriptors master and parker have, but for one of each slot that was ever used."""
    processes = {"master": server.process.pid, "parker": server.status()["processes"]["parker"]}
    return {name: len(_files(pid)) for name, pid in processes.items() if pid is not None}


def _files(pid: int) -> list[str]:
    links = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(entry.path))
    return [link for link in links if not link.startswith("/memfd:linepool-stack")]


def zombies(server: ServerProcess) -> int:
    """Return how many children of the master have ended and are not reaped."""
    count = 0
    for pid in proc.children(server.process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            count += proc.is_zombie(pid)
    return count
