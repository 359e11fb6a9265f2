"""What an operator does: resize, reload, upgrade, stop and start again; and a long time of it all."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from linepool.errors import SetupError
from tests.servers import ServerProcess
from tests.torture.experiments.generator import Plan
from tests.torture.experiments.ground import APP, WORKERS, Ground

_SIZES = ("8", "2", "6:12", "1", "4", "12", "3:3", "1:2", "5")
_BETWEEN = 20  # requests between two changes
_STORM = ("--max-spawn-rate", "1000", "--max-requests", "250")
_BUSY = 8
_FIRST = 10**8
_KILLS_PER_RELOAD = 20
_PAUSE = 100  # requests between two kills of the soak


def storm(ground: Ground) -> None:
    """T6: the pool is resized all the time, the code reloaded, some of it broken, the server upgraded."""
    loads = [ground.load(), ground.load()]
    app = _copy(ground)
    server = ground.serve(*_STORM, target=app)
    ground.look(server)
    for i, load in enumerate(loads):  # the second one opens a connection for every request
        plan = ground.plan(server, clients=_BUSY, first=1 + i * _FIRST, each=i)
        load.start(plan)
    changes = ["resize"] * ground.size.pick(5, 100)
    for name, few, many in (("reload", 1, 6), ("broken", 0, 2), ("upgrade", 0, 2)):
        changes += [name] * ground.size.pick(few, many)
    ground.rng.shuffle(changes)
    with _some_parked(ground, server):
        for change in changes:
            _change(ground, server, app, change)
            ground.await_requests(_BETWEEN)
        server.order(f"SCALE {WORKERS}")
        ground.until_whole(server, 0)
        requests = [one for load in loads for one in load.finish()]
    ground.account(requests)
    ground.report.check("requests lost", sum(ground.report.lost.values()))
    ground.report.check("connections refused", sum(load.refused for load in loads))
    ground.innocent(server)
    ground.look_again(server)
    ground.report.kills = len(changes)


def _some_parked(
    ground: Ground, server: ServerProcess
) -> contextlib.AbstractContextManager[object]:
    # What begins with TLS stays in its worker; a PROXY header would have to be sent first.
    return contextlib.nullcontext() if ground.wraps else ground.parked(server, 20)


def _copy(ground: Ground) -> Path:
    """Return a copy of the app that can be changed."""
    directory = ground.directory / "app"
    directory.mkdir()
    for name in (APP.name, "stuck_app.py"):
        shutil.copy(APP.with_name(name), directory)
    return directory / APP.name


def _change(ground: Ground, server: ServerProcess, app: Path, change: str) -> None:
    began = time.monotonic()
    if change == "resize":
        server.order(f"SCALE {ground.rng.choice(_SIZES)}")
        return
    if change != "broken":
        server.order(change.upper())
        ground.report.recovery_s.append(time.monotonic() - began)
        return
    generation = server.status()["generation"]
    app.write_text("def broken(:\n")
    with contextlib.suppress(SetupError):
        server.order("RELOAD")
    shutil.copy(APP, app)
    ground.report.check(
        "generations of code that does not load", server.status()["generation"] - generation
    )


def restarts(ground: Ground) -> None:
    """T6: the server is stopped and started again on the same listening socket, under load."""
    load = ground.load()
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        where: dict[str, Any] = {"bind": (f"fd://{listener.fileno()}",)}
        where["pass_fds"] = (listener.fileno(),)
        server = ground.serve(**where)
        load.start(
            Plan(address=address, clients=_BUSY, each=1, bursts=False, seed=ground.report.seed)
        )
        failed = 0
        for _ in range(ground.size.pick(1, 8)):
            ground.await_requests(_BETWEEN)
            began = time.monotonic()
            failed += server.stop() != 0
            server = ground.serve(**where)
            ground.report.recovery_s.append(time.monotonic() - began)
        ground.await_requests(_BETWEEN)
        requests = load.finish()
        ground.account(requests)
        ground.report.kills = len(ground.report.recovery_s)
        ground.report.check("stops with an error", failed)
        ground.report.check("requests lost", sum(ground.report.lost.values()))
        ground.report.check("connections refused", load.refused)
        ground.innocent(server)


def soak(ground: Ground) -> None:
    """T12: for a long time workers are killed and recycled, and the code reloaded; nothing grows."""
    loads = [ground.load(), ground.load()]
    idle_timeout = str(2 * ground.size.seconds + 600)  # the idle connections are to stay
    server = ground.serve(
        *("--max-requests", "1000", "--max-requests-jitter", "0.5", "--idle-timeout", idle_timeout)
    )
    ground.look(server)
    for i, load in enumerate(loads):
        load.start(
            ground.plan(server, clients=8, first=1 + i * _FIRST, each=i, pause=1, all_pause=True)
        )
    end = time.monotonic() + ground.size.seconds
    memory: list[dict[str, int]] = []
    with ground.parked(server, 200):
        for turn in range(10**9):
            ground.await_requests(_PAUSE)
            spawned = server.status()["counters"]["spawned"]
            if turn % _KILLS_PER_RELOAD == _KILLS_PER_RELOAD - 1:
                server.order("RELOAD")
                memory.append(_memory(server))
            elif ground.kill(server, ground.rng.choice(server.pids())):
                began = time.monotonic()
                ground.until_whole(server, spawned + 1)
                ground.report.recovery_s.append(time.monotonic() - began)
            if time.monotonic() > end:
                break
        requests = [one for load in loads for one in load.finish()]
    ground.account(requests)
    ground.innocent(server, ground.report.kills)
    ground.look_again(server)
    figures = ground.report.figures
    figures["seconds"] = round(ground.size.seconds)
    figures["recycled"] = server.status()["counters"]["recycled"]
    if len(memory) > 1:
        figures["rss_kib"] = {name: [memory[0][name], memory[-1][name]] for name in memory[0]}


def _memory(server: ServerProcess) -> dict[str, int]:
    """Return the resident memory of master and parker in KiB (proc(5))."""
    pids = {"master": server.process.pid, "parker": server.status()["processes"]["parker"]}
    found = {}
    for name, pid in pids.items():
        match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        found[name] = int(match[1]) if match else 0
    return found
