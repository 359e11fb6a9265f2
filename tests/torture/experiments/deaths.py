"""Processes that die: workers at random and at the hand-over of a connection, and the master."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time

from linepool.testing import Peer
from tests.servers import ServerProcess, has_ended
from tests.torture import proc
from tests.torture.experiments.account import Kill
from tests.torture.experiments.generator import Plan
from tests.torture.experiments.ground import WORKERS, Ground

_PAUSE_US = 300  # after a hand-over begins, at most
_BETWEEN = 20  # requests between two deaths


def worker_death(ground: Ground) -> None:
    """T1: workers die at any moment, of KILL, of SEGV and by os._exit(), and their pids are used again."""
    count = ground.size.pick(6, 100)
    load = ground.load()
    server = ground.serve()
    ground.look(server)
    load.start(Plan(address=server.address, clients=6, seed=ground.report.seed))
    ground.await_requests(_BETWEEN)
    before = set[int]()
    with ground.parked(server, ground.size.pick(20, 50)):
        for done in range(1, count + 1):
            before |= set(server.pids())
            _let_one_die(ground, server)
            began = time.monotonic()
            ground.until_whole(server, WORKERS + done)
            ground.report.recovery_s.append(time.monotonic() - began)
            ground.await_requests(_BETWEEN)
    requests = load.finish()
    ground.account(requests)
    ground.look_again(server)
    ground.innocent(server, ground.report.kills)
    ground.report.check("workers that died", ground.report.kills, count)


def _let_one_die(ground: Ground, server: ServerProcess) -> None:
    way = ground.rng.randrange(4)
    if way == 0:
        with server.connect() as peer:
            ground.ask(peer, "END")
        return
    while True:
        pid = ground.rng.choice(server.pids())
        if ground.kill(server, pid, signal.SIGSEGV if way == 1 else signal.SIGKILL):
            break
    if ground.size.name != "small" and ground.rng.randrange(2):
        ground.report.figures["pids_wished"] = int(
            str(ground.report.figures.get("pids_wished", 0))
        ) + ground.wish_pid(pid)


def hand_over(ground: Ground) -> None:
    """T2: the worker dies, or stays stopped, within 300 us of the moment when it is given a connection."""
    server = ground.serve("--stopped-timeout", "0.3", workers=1)
    ground.look(server)
    deaths = ground.size.pick(10, 200)
    stops = ground.size.pick(2, 20)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(8)]
        for done in range(1, deaths + stops + 1):
            index = ground.rng.randrange(len(peers))
            # A worker that has done nothing yet is replaced after a pause.
            assert ground.ask(peers[index - 1]).is_right
            server.until(lambda state: state["connections"] == {"hot": 0, "parked": len(peers)})
            if not _hit(ground, server, peers[index], dies=done <= deaths):
                peers[index].close()
                peers[index] = stack.enter_context(server.connect())
            began = time.monotonic()
            ground.until_whole(server, 1 + done, 1)
            ground.report.recovery_s.append(time.monotonic() - began)
    ground.account([])
    ground.look_again(server)
    ground.innocent(server, ground.report.kills)
    ground.report.check("lost though no worker had taken it (L1)", ground.report.lost["L1"])


def _hit(ground: Ground, server: ServerProcess, peer: Peer, *, dies: bool) -> bool:
    """Send a request on a parked connection and stop the only worker; return whether the reply came."""
    (pid,) = server.pids()
    pidfd = os.pidfd_open(pid)
    number = ground.next_number()
    sent_at = time.monotonic()
    aim = time.perf_counter() + ground.rng.uniform(0, _PAUSE_US) / 1e6
    peer.send(b"WORK %d\n" % number)
    while time.perf_counter() < aim:
        pass
    signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
    ground.until(lambda: proc.has_stopped(pid), "the worker has stopped")
    held = proc.client_ports(pid, server.port)
    if dies:
        with contextlib.suppress(ProcessLookupError):  # if this was slow, the server has killed it
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert has_ended(pidfd)
    os.close(pidfd)
    ground.kills.append(Kill(pid, time.monotonic(), held))
    line = ""
    with contextlib.suppress(OSError):
        line = peer.line()
    is_right = ground.note(number, peer, line, sent_at).is_right
    if not is_right and held:
        ground.taken.add(number)
    return is_right


def master_death(ground: Ground) -> None:
    """T4: the master is killed under load, its workers idle, busy, in C code, stopped; it starts again."""
    rounds = ground.size.pick(1, 10)
    load = ground.load()
    address = f"127.0.0.1:{_free_port(ground.rng)}"
    server = ground.serve(bind=(address,))
    load.start(Plan(address=address, clients=6, seed=ground.report.seed))
    survivors = old = 0
    for _ in range(rounds):
        ground.await_requests(_BETWEEN)
        with server.connect() as busy:
            busy.send(b"HASH\n")
            server.until(lambda state: any(one["command"] == "HASH" for one in state["workers"]))
            _freeze_one(ground, server)
            began = time.monotonic()
            survivors += _kill_all(ground, server)
        server = ground.serve(bind=(address,))  # fails if the port is not free
        ground.report.recovery_s.append(time.monotonic() - began)
        pids = set(server.pids())
        with server.connect() as peer:
            old += int(ground.ask(peer).worker.partition(".")[0]) not in pids
    ground.await_requests(_BETWEEN)
    requests = load.finish()
    ground.account(requests)
    ground.report.check("processes left by a dead master", survivors)
    ground.report.check("replies of old workers", old)
    ground.report.figures["refused"] = load.refused
    ground.innocent(server)


def _freeze_one(ground: Ground, server: ServerProcess) -> None:
    workers = server.status()["workers"]
    pid = ground.rng.choice([one["pid"] for one in workers if one["command"] != "HASH"])
    os.kill(pid, signal.SIGSTOP)


def _kill_all(ground: Ground, server: ServerProcess) -> int:
    """Kill the master; return how many of its processes did not end."""
    pidfds = [os.pidfd_open(pid) for pid in proc.children(server.process.pid)]
    at = time.monotonic()
    server.process.kill()
    server.process.wait()
    left = sum(not has_ended(pidfd) for pidfd in pidfds)
    ground.kills.append(Kill(0, at, None, time.monotonic()))
    for pidfd in pidfds:
        os.close(pidfd)
    return left


def _free_port(rng: random.Random) -> int:
    """Return a port that no client gets by chance, below the range of those (ip(7))."""
    while True:
        port = rng.randrange(20000, 32000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
