"""A burst of requests, then silence: how fast a pool grows, and how it shrinks again.

64 clients connect at once; each sends one request that takes 2 s, reads the reply and closes. With 32
workers the last reply can come after 4 s. Then no client connects any more.

linepool and other servers that size their own pool, each from 2 to at most 32 workers, get the burst
one after the other; while one server shrinks, the next has its burst. Forks are seen within 5 ms, in
the list of the master's children; the end of a worker at once, through its pidfd. Prints a table, and
writes it and a plot.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import Factory, define, frozen

from benchmarks import harness
from benchmarks.peers import MAX, MIN, Peer, all_peers

_CLIENTS = 64
_SETTLE = 2.0  # seconds between the start of a server and the burst
_POLL = 0.005  # seconds, while a server grows
_SLOW_POLL = 0.05  # seconds, after the burst
_STEP_GAP = 0.5  # seconds; workers that end closer together end in one step


@define
class Course:
    """The history of a pool; times in seconds since the burst began."""

    name: str
    settings: str
    floor: int
    sizes: list[tuple[float, int]] = Factory(list)
    forked_at: list[float] = Factory(list)
    ended_at: list[float] = Factory(list)
    replied_at: list[float] = Factory(list)
    lost: list[str] = Factory(list)
    watched_until: float = 0.0

    @property
    def quiet_at(self) -> float:
        """When the last reply came."""
        return max(self.replied_at, default=0.0)

    @property
    def peak(self) -> tuple[float, int]:
        """When it first reached its largest size, and that size."""
        most = max(size for _, size in self.sizes)
        return next((at, size) for at, size in self.sizes if size == most)

    @property
    def floor_at(self) -> float | None:
        """When it was back at its floor to stay; None if it never was."""
        back = None
        for at, size in self.sizes:
            if size > self.floor:
                back = None
            elif at > self.quiet_at and back is None:
                back = at
        return back

    @property
    def steps(self) -> int:
        """The number of steps in which it shrank after the last reply."""
        times = [at for at in self.ended_at if at > self.quiet_at]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        return bool(times) + sum(gap > _STEP_GAP for gap in gaps)

    def row(self, clients: int) -> tuple[str, ...]:
        at, size = self.peak
        floor_at = self.floor_at
        left = self.watched_until - self.quiet_at
        answered = len(self.replied_at)
        later = sum(one > self.quiet_at for one in self.forked_at)
        return (
            self.name,
            f"{at:.2f}" if size >= MAX else f"{size} after {at:.2f}",
            f"{self.quiet_at:.2f}" + (f" ({answered}/{clients})" if answered < clients else ""),
            f"{floor_at - self.quiet_at:.1f} to {self.floor}"
            if floor_at is not None
            else f"> {left:.0f} (still {self.sizes[-1][1]})",
            str(self.steps),
            f"{len(self.forked_at) - later} + {later}",
            str(len(self.ended_at)),
        )


_HEADINGS = (
    "server",
    f"{MIN} to {MAX}, s",
    "last reply, s",
    "shrunk after, s",
    "in steps",
    "forks (burst + later)",
    "workers ended",
)


class Watch:
    """Watches the children of a master and the clients of the burst, in one loop."""

    def __init__(self, master: int, helpers: set[int], course: Course) -> None:
        self._master = master
        self._course = course
        self._selector = selectors.DefaultSelector()
        self._alive: dict[int, int] = {}  # pid: pidfd
        self._seen = helpers  # and all workers so far
        self._began_at = time.monotonic()
        self._update()
        course.forked_at.clear()  # the workers before the burst

    @property
    def size(self) -> int:
        """The number of live workers."""
        return len(self._alive)

    def burst(self, peer: Peer, clients: int, limit: float) -> None:
        """Have a number of clients connect at once, and watch until all have their reply."""
        self._began_at = time.monotonic()
        self._course.sizes[:] = [(0.0, self.size)]
        waiting = {_Client(peer) for _ in range(clients)}
        for client in waiting:
            self._selector.register(client.socket, selectors.EVENT_WRITE, client)
        while waiting and self._now() < limit:
            for client in self._watch(_POLL):
                if client.advance(self._selector):
                    continue
                waiting.remove(client)
                self._end(client)
        for client in waiting:
            self._end(client)
        self._course.watched_until = self._now()

    def shrink(self, limit: float) -> None:
        """Watch until the pool has been at its floor for 2 s."""
        calm_since = None
        while self._now() < self._course.quiet_at + limit:
            self._watch(_SLOW_POLL)
            if self.size > self._course.floor:
                calm_since = None
            calm_since = calm_since or self._now()
            if self.size <= self._course.floor and self._now() > calm_since + 2:
                break
        self._course.watched_until = self._now()

    def close(self) -> None:
        """Close all descriptors."""
        for pidfd in self._alive.values():
            os.close(pidfd)
        self._selector.close()

    def _now(self) -> float:
        return time.monotonic() - self._began_at

    def _watch(self, pause: float) -> list[_Client]:
        """Watch for a moment; return the clients whose sockets are ready."""
        ready = []
        for key, _ in self._selector.select(pause):
            if isinstance(key.data, _Client):
                ready.append(key.data)
            else:
                self._ended(key.data)
        self._update()
        return ready

    def _update(self) -> None:
        before = self.size
        for pid in harness.children(self._master):
            if pid in self._seen:
                continue
            self._seen.add(pid)
            with contextlib.suppress(ProcessLookupError):
                self._alive[pid] = os.pidfd_open(pid)
                self._selector.register(self._alive[pid], selectors.EVENT_READ, pid)
            self._course.forked_at.append(self._now())
        if self.size != before:
            self._course.sizes.append((self._now(), self.size))

    def _ended(self, pid: int) -> None:
        pidfd = self._alive.pop(pid)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        self._course.ended_at.append(self._now())
        self._course.sizes.append((self._now(), self.size))

    def _end(self, client: _Client) -> None:
        self._selector.unregister(client.socket)
        client.socket.close()
        if client.is_correct:
            self._course.replied_at.append(self._now())
        else:
            self._course.lost.append(client.fault or "not answered")


class _Client:
    """One client of the burst: connects, sends one request, reads the reply."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._reply = b""
        self.fault = ""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", peer.port))

    @property
    def is_correct(self) -> bool:
        """Whether the reply is the expected one."""
        return b"OK\n" in self._reply

    def advance(self, selector: selectors.BaseSelector) -> bool:
        """Send or read without waiting; return whether the client is still busy."""
        try:
            if selector.get_key(self.socket).events == selectors.EVENT_WRITE:
                self.socket.sendall(self._peer.request)
                selector.modify(self.socket, selectors.EVENT_READ, self)
                return True
            data = self.socket.recv(65536)
        except OSError as error:
            self.fault = type(error).__name__
            return False
        self._reply += data
        self.fault = f"read {self._reply!r}"
        return bool(data) and not (self._peer.replies_in_lines and data.endswith(b"\n"))


@frozen
class Bounds:
    """The number of clients, and the limit of each phase in seconds."""

    clients: int
    growing: float
    shrinking: float


def _burst(
    peer: Peer, program: harness.Program, home: Path, bounds: Bounds
) -> tuple[Course, Watch]:
    """Start a server, let it settle, and run the burst."""

    def is_up() -> bool:
        program.said("\0")  # raises if it has exited
        return len(harness.children(program.pid)) >= MIN and _listens(peer.port)

    harness.until(f"{peer.name} is up", is_up)
    time.sleep(_SETTLE)
    course = Course(peer.name, peer.settings, peer.floor)
    watch = Watch(program.pid, peer.helpers(program.pid, home), course)
    print(f"{peer.name}: {watch.size} workers; burst", file=sys.stderr)
    watch.burst(peer, bounds.clients, bounds.growing)
    print(f"{peer.name}: last reply after {course.quiet_at:.2f} s", file=sys.stderr)
    if course.lost:
        print(f"{peer.name}: lost {course.lost}; its log:", file=sys.stderr)
        print(program.log.read_text(errors="replace")[-2000:], file=sys.stderr)
    return course, watch


def _listens(port: int) -> bool:
    """Whether a server listens on a port, without connecting as a client."""
    local = f"0100007F:{port:04X}"
    return any(
        line.split()[1] == local and line.split()[3] == "0A"
        for line in Path("/proc/net/tcp").read_text().splitlines()
    )


def _compare(peers: Sequence[Peer], bounds: Bounds, directory: Path) -> list[Course]:
    """Run the burst on each server in turn, and watch all of them shrink."""
    courses = []
    threads = []
    with contextlib.ExitStack() as stack:
        for number, peer in enumerate(peers):
            home = directory / str(number)
            home.mkdir()
            program = harness.Program(peer.arguments(home), home / "log", cwd=home)
            stack.callback(program.stop, peer.stop_signal)
            course, watch = _burst(peer, program, home, bounds)
            courses.append(course)

            def shrink(watch: Watch = watch) -> None:
                watch.shrink(bounds.shrinking)
                watch.close()

            threads.append(threading.Thread(target=shrink, daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()
    return courses


def _plot(courses: Sequence[Course], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (start, whole) = plt.subplots(1, 2, figsize=(13, 5), sharey=True, layout="constrained")
    for course in courses:
        ours = course.name == "linepool"
        times = [at for at, _ in course.sizes] + [course.watched_until]
        sizes = [size for _, size in course.sizes]
        for panel in (start, whole):
            panel.step(
                times,
                [*sizes, sizes[-1]],
                where="post",
                label=course.name,
                linewidth=2.5 if ours else 1.3,
                zorder=3 if ours else 2,
            )
    start.set_xlim(0, 6)
    whole.set_xlim(left=0)
    start.set_ylim(0, MAX + 2)
    start.set_ylabel("workers alive")
    start.set_title("the first 6 s")
    whole.set_title(f"burst of {_CLIENTS} requests of 2 s, then silence")
    for panel in (start, whole):
        panel.set_xlabel("seconds since the burst")
        panel.grid(alpha=0.3)
    whole.legend(loc="upper right", fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _report(courses: Sequence[Course], bounds: Bounds, absent: Sequence[str]) -> str:
    parts = [
        f"{bounds.clients} clients at once with one slow request each, then silence;"
        f" {harness.machine()}",
        harness.table(_HEADINGS, [course.row(bounds.clients) for course in courses]),
        "\n".join(f"- {course.name}: {course.settings}, at most {MAX}" for course in courses),
        *absent,
    ]
    return "\n\n".join(parts) + "\n"


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="servers whose names contain it"
    )
    parser.add_argument("--clients", type=int, default=_CLIENTS, help="default: %(default)s")
    parser.add_argument(
        "--block", type=float, default=2.0, help="seconds per request; default: %(default)s"
    )
    parser.add_argument(
        "--limit", type=float, default=120, help="seconds for each phase; default: %(default)s"
    )
    parser.add_argument(
        "--linepool", nargs="+", default=[], metavar="OPTION=VALUE", help="as --shrink-window=10"
    )
    parser.add_argument("--output", type=Path, default=harness.HERE / "results")
    options = parser.parse_args()
    given = ["--" + option.lstrip("-") for option in options.linepool]
    peers = all_peers(options.block, given)
    if options.only:
        words = [word.lower() for word in options.only]
        peers = [peer for peer in peers if any(word in peer.name.lower() for word in words)]
    absent = [f"{peer.name}: not installed ({peer.missing()})" for peer in peers if peer.missing()]
    peers = [peer for peer in peers if not peer.missing()]
    bounds = Bounds(options.clients, options.limit, options.limit)
    with tempfile.TemporaryDirectory(prefix="linepool-bench-") as name:
        courses = _compare(peers, bounds, Path(name))
    report = _report(courses, bounds, absent)
    print(report)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "pool-burst.md").write_text(report)
    if harness.module_missing("matplotlib"):
        print("no plot: matplotlib is not installed", file=sys.stderr)
    elif courses:
        _plot(courses, options.output / "pool-burst.png")
        print(f"plot: {options.output / 'pool-burst.png'}", file=sys.stderr)
    return 1 if any(course.lost for course in courses) else 0


if __name__ == "__main__":
    harness.main(_run)
