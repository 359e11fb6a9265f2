"""What comes from outside: hostile clients, clients that read late, logs that nobody reads, shortages."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import socket
import struct
import time
from collections.abc import Iterator
from hashlib import sha256

from attrs import evolve

from tests.servers import ServerProcess
from tests.torture.experiments.generator import Plan, Request
from tests.torture.experiments.ground import WORKERS, Ground
from tests.torture.hostile_clients import Load, attack

_BETWEEN = 20  # requests
_ATTACKS = [
    Load(name="one byte at a time", protocol="line", connections=100, more=b"x", pause=0.02),
    Load(name="silence", protocol="line", connections=50),
    Load(
        name="replies not read", protocol="line", connections=8, more=b"HELP\n" * 500, reads=False
    ),
    Load(name="a line without end", protocol="line", connections=2, more=b"x" * 65536, pause=0.01),
    Load(name="blank lines", protocol="line", connections=2, more=b"\r\n" * 4096, pause=0.01),
    Load(name="HTTP", protocol="line", connections=4, head=b"POST / HTTP/1.1\r\n\r\nWORK 7\r\n"),
]
_RECORD = re.compile(
    r"\d{4}-\d\d-\d\dT\S+ [A-Z]+ +\S|      ?\S|    |listening on |ready: |stopped|$"
)
_FAIL = re.compile(r"handler failed|ValueError")


def hostile_clients(ground: Ground) -> None:
    """T8: clients that drip, say nothing, do not read, send lines without end, HTTP, and reset."""
    load = ground.load()
    server = ground.serve("--max-connections-per-address", "400")
    load.start(Plan(address=server.address, clients=4, seed=ground.report.seed))
    ground.await_requests(_BETWEEN)
    part = 4 if ground.size.name == "small" else 1
    with contextlib.ExitStack() as stack:
        for one in _ATTACKS:
            smaller = evolve(one, connections=max(1, one.connections // part))
            stack.enter_context(attack(smaller, server.port))
        for _ in range(ground.size.pick(5, 30)):
            for _ in range(20):
                _reset(server.port)
            ground.await_requests(_BETWEEN)
        parker = server.status()["processes"]["parker"]
    requests = load.finish()
    ground.account(requests)
    ground.report.kills = sum(one.connections for one in _ATTACKS) // part
    ground.report.check("requests of others lost", sum(ground.report.lost.values()))
    ground.report.check("requests over HTTP that were run", _begun(ground, b"+7\n"))
    ground.report.check("parkers that died", int(server.status()["processes"]["parker"] != parker))
    ground.innocent(server)


def _begun(ground: Ground, line: bytes) -> int:
    # The number 7 is also one of the load, and may be begun once.
    return max(0, sum(path.read_bytes().count(line) for path in ground.journals.iterdir()) - 1)


def _reset(port: int) -> None:
    """Connect and reset the connection."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def late_readers(ground: Ground) -> None:
    """T10: replies of a megabyte to clients that read late, with input that nobody reads, and every end."""
    server = ground.serve("--max-requests", "5")
    ways = ("quit", "errors", "end of input", "kill") * ground.size.pick(2, 15)
    counts = dict.fromkeys(("complete", "cut", "garbled"), 0)
    for way in ways:
        size = 6_000_000 if way == "kill" else 1_000_000
        got, expected = _read_late(ground, server, way, size)
        first = got.partition(b"\n")[0]
        if got.startswith(expected):
            counts["complete"] += 1
        elif way == "kill" and expected.startswith(first):
            counts["cut"] += 1
        else:
            counts["garbled"] += 1
            ground.report.details.append(
                f"{way}: {len(got)} bytes, {got[:200]!r} ... {got[-100:]!r}"
            )
    ground.report.n = len(ways)
    ground.report.kills = len(ground.kills)
    ground.report.check("replies cut or garbled though nothing was killed", counts["garbled"])
    ground.report.figures.update(counts)
    ground.innocent(server, len(ground.kills))


def _read_late(ground: Ground, server: ServerProcess, way: str, size: int) -> tuple[bytes, bytes]:
    """Return what a client got that reads when the reply is done, and what it should have got."""
    ends = {"quit": b"QUIT\n" + b"x" * 50_000, "errors": b"NONE\n" * 500 + b"QUIT\n"}
    number = ground.next_number()
    got = b""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", server.port))
        sent_at = time.monotonic()
        sock.sendall(b"BIG %d %d\n" % (number, size) + ends.get(way, b""))
        worker = _worker_of(ground, number)
        if way == "end of input":
            sock.shutdown(socket.SHUT_WR)
        if way == "kill":
            spawned = server.status()["counters"]["spawned"]
            if ground.kill(server, int(worker.partition(".")[0])):
                ground.until_whole(server, spawned + 1)
        with contextlib.suppress(ConnectionError):
            while chunk := sock.recv(1 << 20):
                got += chunk
    ground.own.append(Request(number, "", worker, 0, 0.0, sent_at, time.monotonic()))
    proof = sha256(b"%d" % number).hexdigest()
    return got, f"{number} {worker} {proof} {'x' * size}\n".encode()


def _worker_of(ground: Ground, number: int) -> str:
    """Wait until a request has been run; return the name of the journal that says so."""
    found: list[str] = []

    def look() -> bool:
        line = b"-%d\n" % number
        found[:] = [path.name for path in ground.journals.iterdir() if line in path.read_bytes()]
        return bool(found)

    ground.until(look, "the request has been run")
    return found[0]


def logs(ground: Ground) -> None:
    """T11: the log is not read, the disk is full, the file is rotated; requests go on, records stay whole."""
    load = ground.load()
    failures = ground.size.pick(160, 2000)
    unread = ground.serve(workers=1)
    assert unread.process.stderr is not None
    fcntl.fcntl(unread.process.stderr.fileno(), fcntl.F_SETPIPE_SZ, 65536)
    load.start(Plan(address=unread.address, clients=4, seed=ground.report.seed))
    ground.await_requests(_BETWEEN)
    _fail(ground, unread, failures)  # fills the pipe
    ground.await_requests(10 * _BETWEEN)
    requests = load.finish()
    ground.account(requests)
    ground.report.check("requests of others lost", sum(ground.report.lost.values()))
    ground.innocent(unread)
    unread.wait_for("handler failed")  # it is read again
    _fail(ground, unread, 1)
    unread.stop()
    text = "\n".join(unread.log)
    dropped = sum(int(one) for one in re.findall(r"(\d+) log records dropped", text))
    written = text.count("handler failed")
    ground.report.check("failures neither logged nor counted", max(0, failures - written - dropped))
    _full_disk(ground)
    _rotation(ground, failures // 4)
    ground.report.kills = failures
    ground.report.figures.update(logged=written, dropped=dropped)


def _fail(ground: Ground, server: ServerProcess, count: int) -> None:
    with server.connect() as peer:
        for _ in range(count):
            number = 3 * 10**9 + ground.rng.randrange(10**9)
            assert peer.ask(f"FAIL {number}").startswith("SERVER_ERROR")


def _full_disk(ground: Ground) -> None:
    server = ground.serve("--log-file", "/dev/full", ready=False)
    server.wait_for("ready: ")
    server.addresses = [one.split()[-1] for one in server.log if one.startswith("listening on ")]
    _fail(ground, server, 50)
    with server.connect() as peer:
        ground.report.check("requests lost with a full disk", int(not ground.ask(peer).is_right))
    ground.report.check(
        "servers that ended with a full disk", int(server.process.poll() is not None)
    )


def _rotation(ground: Ground, failures: int) -> None:
    path = ground.directory / "log"
    server = ground.serve("--log-file", str(path))
    rounds = 10
    for turn in range(rounds):
        _fail(ground, server, failures // rounds)
        path.rename(ground.directory / f"log.{turn}")
        server.order("REOPEN")
    assert server.stop() == 0
    lines = [
        line
        for one in sorted(ground.directory.glob("log*"))
        for line in one.read_bytes().decode("utf-8").split("\n")
    ]
    broken = [line for line in lines if not _RECORD.match(line) or not line.isprintable()]
    records = sum("handler failed" in line for line in lines)
    ground.report.check("records that are not one line", len(broken))
    ground.report.check("failures logged while rotated", records, failures // rounds * rounds)
    ground.report.details += broken[:5]


def shortages(ground: Ground) -> None:
    """T7: a worker, the parker and the master have no descriptor left for a while, under load."""
    load = ground.load()
    server = ground.serve("--respawn-backoff", "0.05")
    ground.look(server)
    load.start(
        Plan(address=server.address, clients=6, each=5, bursts=False, seed=ground.report.seed)
    )
    ground.await_requests(_BETWEEN)
    for _ in range(ground.size.pick(1, 8)):
        for name in ("worker", "parker", "master"):
            state = server.status()
            pids = {"master": server.process.pid, "parker": state["processes"]["parker"]}
            with _without_descriptors(pids.get(name) or ground.rng.choice(server.pids())):
                if name == "parker" and ground.scheme == "dispatch":  # it accepts: clients wait
                    server.until(lambda state: state["listeners"][0]["backlog"])
                else:
                    ground.await_requests(10 * _BETWEEN)
            began = time.monotonic()
            ground.until_whole(server, 0, WORKERS)
            ground.await_requests(_BETWEEN)
            ground.report.recovery_s.append(time.monotonic() - began)
    requests = load.finish()
    # A parker without descriptors loses what it is given, and counts it.
    ground.report.excused = dropped = server.status()["counters"]["dropped"]
    ground.account(requests)
    ground.innocent(server)
    ground.look_again(server)
    ground.report.kills = len(ground.report.recovery_s)
    ground.report.figures["dropped"] = dropped


@contextlib.contextmanager
def _without_descriptors(pid: int) -> Iterator[None]:
    """Let a process open no further descriptor until the block ends; it may end."""
    try:
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    except ProcessLookupError:
        yield
        return
    yield
    if os.path.exists(f"/proc/{pid}"):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
