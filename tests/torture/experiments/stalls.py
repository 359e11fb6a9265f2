"""What does not go on: requests that hang, and processes that are stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from tests.servers import ServerProcess, has_ended
from tests.torture import proc
from tests.torture.experiments.account import Kill
from tests.torture.experiments.generator import Plan
from tests.torture.experiments.ground import WORKERS, Ground

_HANGS = ("SLEEP", "LOCK", "STUBBORN", "DEQUE", "STOPPED", "BEGUN")
_MORE_HANGS = ("SOCKET", "LOOP", "REGEX", "PBKDF2", "NOTERM")
_HOLDS_GIL = "DEQUE"  # nothing else runs in that worker, so it cannot hand its connections off
_NAMES = {
    "SLEEP": "wait_for_the_clock",
    "LOCK": "wait_for_a_lock",
    "STUBBORN": "swallow_every_exception",
    "DEQUE": "consume_without_end",
    "STOPPED": "",  # a process that is stopped cannot say where
    "BEGUN": "hang_after_a_part",
    "SOCKET": "wait_for_an_answer",
    "LOOP": "run_in_circles",
    "REGEX": "backtrack_without_end",
    "PBKDF2": "hash_without_end",
    "NOTERM": "sleep_and_ignore_term",
}
_TIMEOUT = 2.0  # seconds
_GRACE = 2.0  # a busy machine interrupts a handler within that, and does not kill it
_AT_ONCE = 6
_BETWEEN = 20  # requests


def stuck_requests(ground: Ground) -> None:
    """T3: requests hang in every known way; each ends with an error line, and no other request notices."""
    kinds = (
        _HANGS if ground.size.name == "small" else (*_HANGS, *_MORE_HANGS) * ground.size.pick(1, 4)
    )
    load = ground.load()
    options = ("--request-timeout", str(_TIMEOUT), "--kill-grace", str(_GRACE))
    server = ground.serve(*options, workers=_AT_ONCE + WORKERS)
    ground.look(server)
    load.start(Plan(address=server.address, clients=4, seed=ground.report.seed))
    ground.await_requests(_BETWEEN)
    ends: list[tuple[str, list[str], float]] = []
    stuck = set[int]()
    for i in range(0, len(kinds), _AT_ONCE):
        threads = [
            threading.Thread(target=_hang, args=(ground, server, kind, i + j, ends, stuck))
            for j, kind in enumerate(kinds[i : i + _AT_ONCE])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ground.await_requests(_BETWEEN)
    requests = load.finish()
    ground.until_whole(server, 0, _AT_ONCE + WORKERS)
    ground.report.check(
        "requests of others without their reply",
        sum(not one.is_right and one.port not in stuck for one in requests),
    )
    ground.account(requests)
    _check_ends(ground, ends)
    killed = sum(kind in ("STUBBORN", "DEQUE", "PBKDF2", "STOPPED") for kind in kinds)
    ground.innocent(server, killed)
    ground.report.kills = len(ends)
    ground.look_again(server)
    server.stop()
    named = [kind for kind in dict.fromkeys(kinds) if _NAMES[kind] and _NAMES[kind] in server.text]
    ground.report.check(
        "kinds named in the log", len(named), sum(bool(_NAMES[k]) for k in set(kinds))
    )


def _hang(
    ground: Ground,
    server: ServerProcess,
    kind: str,
    index: int,
    ends: list[tuple[str, list[str], float]],
    stuck: set[int],
) -> None:
    """Send a request that hangs; note the lines that came back, and the ports that stay in its worker."""
    number = 2 * 10**9 + index
    began = time.monotonic()
    lines: list[str] = []
    with contextlib.suppress(OSError), server.connect() as peer:
        if kind == "BEGUN":
            ground.taken.add(number)
            peer.send(b"BEGUN %d\n" % number)
        else:
            peer.send(f"{kind}\n".encode())
        if kind == _HOLDS_GIL:
            stuck |= ground.note_stuck(server, kind)
        while line := peer.line():
            lines.append(line)
            if line.startswith("SERVER_ERROR"):
                break
    ends.append((kind, lines, time.monotonic() - began))


def _check_ends(ground: Ground, ends: list[tuple[str, list[str], float]]) -> None:
    report = ground.report
    silent = [kind for kind, lines, _ in ends if not lines]
    plain = [lines for kind, lines, _ in ends if kind != "BEGUN"]
    report.check("hanging requests that ended without a line", len(silent))
    report.check(
        "hanging requests that ended without an error line",
        sum(not lines[-1:] or not lines[-1].startswith("SERVER_ERROR") for lines in plain),
    )
    report.check("hanging requests that ended early", sum(s < _TIMEOUT for _, _, s in ends))
    late = sorted(seconds - _TIMEOUT for _, _, seconds in ends)
    report.figures["late_s"] = {"median": round(late[len(late) // 2], 3), "max": round(late[-1], 3)}


def frozen_processes(ground: Ground) -> None:
    """T5: the master is stopped while the workers serve; workers and the parker are stopped."""
    rounds = ground.size.pick(1, 6)
    load = ground.load()
    options = ("--request-timeout", str(_TIMEOUT), "--stopped-timeout", "2")
    server = ground.serve(*options)
    ground.look(server)
    load.start(Plan(address=server.address, clients=6, seed=ground.report.seed))
    with ground.parked(server, 10):
        for done in range(rounds):
            _freeze_master(ground, server)
            ground.report.check(
                "workers killed while the master was stopped", _deaths(server), done
            )
            _freeze_worker(ground, server)
            ground.until_whole(server, WORKERS + done + 1)
    for _ in range(rounds):
        _freeze_parker(ground, server)
    ground.await_requests(_BETWEEN)
    requests = load.finish()
    ground.account(requests)
    ground.innocent(server, rounds)
    ground.look_again(server)


def _deaths(server: ServerProcess) -> int:
    counters = server.status()["counters"]
    return int(counters["kills"] + counters["crashes"])


def _freeze_master(ground: Ground, server: ServerProcess) -> None:
    """Stop the master for longer than the time limit of requests, which are served meanwhile."""
    pid = server.process.pid
    os.kill(pid, signal.SIGSTOP)
    ground.until(lambda: proc.has_stopped(pid), "the master has stopped")
    until = time.monotonic() + _TIMEOUT + 0.5
    ground.await_requests(10 * _BETWEEN)
    ground.until(lambda: time.monotonic() > until, "requests would be overdue")
    os.kill(pid, signal.SIGCONT)


def _freeze_worker(ground: Ground, server: ServerProcess) -> None:
    """Stop a worker, which the master must kill."""
    pid = ground.rng.choice(server.pids())
    with contextlib.closing(_Pidfd(pid)) as pidfd:
        at = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        ground.until(lambda: proc.has_stopped(pid), "the worker has stopped")
        ports = proc.client_ports(pid, server.port)
        assert has_ended(pidfd.number), "a stopped worker was not replaced"
        ended = time.monotonic()
    ground.kills.append(Kill(pid, at, ports, ended))
    ground.report.recovery_s.append(ended - at)


def _freeze_parker(ground: Ground, server: ServerProcess) -> None:
    """Stop the parker for a moment; nobody is to notice."""
    pid = server.status()["processes"]["parker"]
    os.kill(pid, signal.SIGSTOP)
    ground.until(lambda: proc.has_stopped(pid), "the parker has stopped")
    os.kill(pid, signal.SIGCONT)
    with server.connect() as peer:
        assert ground.ask(peer).is_right
    ground.report.check(
        "parkers replaced that went on in time", int(server.status()["processes"]["parker"] != pid)
    )


class _Pidfd:
    """A pidfd."""

    def __init__(self, pid: int) -> None:
        self.number = os.pidfd_open(pid)

    def close(self) -> None:
        """Close it."""
        os.close(self.number)
