"""Burst and silence: how fast does a pool grow when it must, and how does it come back?

64 clients connect at once; each sends one request that blocks for 2 s, reads its reply and leaves.
Then nothing happens any more. With 32 workers at once the last reply can come after 4 s.

The same burst goes to linepool and to other servers that size their own pool, each from 2 to at
most 32 workers, one after the other; while one comes back to its floor, the next has its burst. A
fork is seen within 5 ms by reading the list of the master's children, the end of a worker at once
by its pidfd. Prints a table, and writes it and a plot.
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

import harness
from attrs import Factory, define, frozen
from peers import MAX, MIN, Peer, all_peers

_CLIENTS = 64
_SETTLE = 2.0  # seconds between the start of a server and the burst
_LOOK_EVERY = 0.005  # seconds, while a server grows
_LOOK_EVERY_LATER = 0.05  # seconds, when the burst is over
_ONE_STEP = 0.5  # seconds; workers that end closer together than this end in one step


@define
class Course:
    """What a pool did, in seconds since the burst began."""

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
        """When it was largest for the first time, and how large."""
        most = max(size for _, size in self.sizes)
        return next((at, size) for at, size in self.sizes if size == most)

    @property
    def floor_at(self) -> float | None:
        """When it was down for good, or None: it was not."""
        back = None
        for at, size in self.sizes:
            if size > self.floor:
                back = None
            elif at > self.quiet_at and back is None:
                back = at
        return back

    @property
    def steps(self) -> int:
        """In how many steps it shrank after the last reply."""
        times = [at for at in self.ended_at if at > self.quiet_at]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        return bool(times) + sum(gap > _ONE_STEP for gap in gaps)

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
    "then back, s",
    "in steps",
    "forks (up + later)",
    "workers ended",
)


class Watch:
    """Looks at a master's children, and at the clients of the burst, in one loop."""

    def __init__(self, master: int, course: Course) -> None:
        self._master = master
        self._course = course
        self._selector = selectors.DefaultSelector()
        self._alive: dict[int, int] = {}  # pid: pidfd
        self._seen: set[int] = set()
        self._began_at = time.monotonic()
        self._look()
        course.forked_at.clear()  # those that it began with

    @property
    def size(self) -> int:
        """How many workers are alive."""
        return len(self._alive)

    def burst(self, peer: Peer, clients: int, limit: float) -> None:
        """Have so many clients connect at once, and go on until all have been answered."""
        self._began_at = time.monotonic()
        self._course.sizes[:] = [(0.0, self.size)]
        waiting = {_Client(peer) for _ in range(clients)}
        for client in waiting:
            self._selector.register(client.socket, selectors.EVENT_WRITE, client)
        while waiting and self._now() < limit:
            for client in self._turn(_LOOK_EVERY):
                if client.turn(self._selector):
                    continue
                waiting.remove(client)
                self._end(client)
        for client in waiting:
            self._end(client)
        self._course.watched_until = self._now()

    def come_back(self, limit: float) -> None:
        """Go on until the pool is back at its floor, and a little longer."""
        calm_since = None
        while self._now() < self._course.quiet_at + limit:
            self._turn(_LOOK_EVERY_LATER)
            if self.size > self._course.floor:
                calm_since = None
            calm_since = calm_since or self._now()
            if self.size <= self._course.floor and self._now() > calm_since + 2:
                break
        self._course.watched_until = self._now()

    def close(self) -> None:
        """Give the descriptors back."""
        for pidfd in self._alive.values():
            os.close(pidfd)
        self._selector.close()

    def _now(self) -> float:
        return time.monotonic() - self._began_at

    def _turn(self, pause: float) -> list[_Client]:
        """Look at the pool; return the clients for whom something happened."""
        ready = []
        for key, _ in self._selector.select(pause):
            if isinstance(key.data, _Client):
                ready.append(key.data)
            else:
                self._ended(key.data)
        self._look()
        return ready

    def _look(self) -> None:
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
        if client.is_right:
            self._course.replied_at.append(self._now())
        else:
            self._course.lost.append(client.fault or "not answered")


class _Client:
    """One client of the burst: connects, asks once, reads to the end."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._reply = b""
        self.fault = ""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", peer.port))

    @property
    def is_right(self) -> bool:
        """Whether it got what it asked for."""
        return b"OK\n" in self._reply

    def turn(self, selector: selectors.BaseSelector) -> bool:
        """Do what is possible now; return whether there is more to come."""
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
        return bool(data) and not (self._peer.answers_in_lines and data.endswith(b"\n"))


@frozen
class Bounds:
    """How long each part may take, in seconds, and how many clients there are."""

    clients: int
    growing: float
    coming_back: float


def _burst(peer: Peer, program: harness.Program, bounds: Bounds) -> tuple[Course, Watch]:
    """Start, settle, burst; the way back is still to be watched."""

    def is_up() -> bool:
        program.said("\0")  # raises if it has ended
        return len(harness.children(program.pid)) >= MIN and _listens(peer.port)

    harness.until(f"{peer.name} is up", is_up)
    time.sleep(_SETTLE)
    course = Course(peer.name, peer.settings, peer.floor)
    watch = Watch(program.pid, course)
    print(f"{peer.name}: {watch.size} workers; burst", file=sys.stderr)
    watch.burst(peer, bounds.clients, bounds.growing)
    print(f"{peer.name}: answered after {course.quiet_at:.2f} s", file=sys.stderr)
    if course.lost:
        print(f"{peer.name}: lost {course.lost}; its log:", file=sys.stderr)
        print(program.log.read_text(errors="replace")[-2000:], file=sys.stderr)
    return course, watch


def _listens(port: int) -> bool:
    """Whether something listens on a port; without connecting, for that would be a client."""
    local = f"0100007F:{port:04X}"
    return any(
        line.split()[1] == local and line.split()[3] == "0A"
        for line in Path("/proc/net/tcp").read_text().splitlines()
    )


def _compare(peers: Sequence[Peer], bounds: Bounds, directory: Path) -> list[Course]:
    """Give each its burst in turn, and watch all of them on their way back."""
    courses = []
    threads = []
    with contextlib.ExitStack() as stack:
        for number, peer in enumerate(peers):
            home = directory / str(number)
            home.mkdir()
            program = harness.Program(peer.arguments(home), home / "log", cwd=home)
            stack.callback(program.stop, peer.stop_signal)
            course, watch = _burst(peer, program, bounds)
            courses.append(course)

            def come_back(watch: Watch = watch) -> None:
                watch.come_back(bounds.coming_back)
                watch.close()

            threads.append(threading.Thread(target=come_back, daemon=True))
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
    whole.set_title(f"burst of {_CLIENTS} clients that block 2 s, then silence")
    for panel in (start, whole):
        panel.set_xlabel("seconds since the burst")
        panel.grid(alpha=0.3)
    whole.legend(loc="upper right", fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _report(courses: Sequence[Course], bounds: Bounds, absent: Sequence[str]) -> str:
    parts = [
        f"{bounds.clients} clients at once, each one request that blocks, then silence;"
        f" {harness.machine()}",
        harness.table(_HEADINGS, [course.row(bounds.clients) for course in courses]),
        "\n".join(f"- {course.name}: {course.settings}, at most {MAX}" for course in courses),
        *absent,
    ]
    return "\n\n".join(parts) + "\n"


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="servers named so")
    parser.add_argument("--clients", type=int, default=_CLIENTS, help="default: %(default)s")
    parser.add_argument("--block", type=float, default=2.0, help="seconds; %(default)s")
    parser.add_argument("--limit", type=float, default=120, help="seconds up, and as many down")
    parser.add_argument(
        "--linepool", nargs="+", default=[], metavar="OPTION=VALUE", help="as --shrink-window=10"
    )
    parser.add_argument("--output", type=Path, default=harness.HERE / "results")
    options = parser.parse_args()
    os.environ["BLOCK_SECONDS"] = str(options.block)  # for the targets in Python
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
        print("no plot: matplotlib is missing", file=sys.stderr)
    elif courses:
        _plot(courses, options.output / "pool-burst.png")
        print(f"plot: {options.output / 'pool-burst.png'}", file=sys.stderr)
    return 1 if any(course.lost for course in courses) else 0


if __name__ == "__main__":
    harness.main(_run)
