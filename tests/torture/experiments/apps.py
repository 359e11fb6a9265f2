"""Several apps in one server: what goes wrong in one of them, and what the other's clients notice."""

from __future__ import annotations

import contextlib
import threading

from tests.servers import ServerProcess
from tests.torture.experiments.generator import Plan
from tests.torture.experiments.ground import APP, OWN_NUMBERS, WORKERS, Ground

_BETWEEN = 20  # requests between two faults
_LINES, _RESP = 0, 1  # listeners
_FIRST = 10**8
_LIMIT = 1.5  # seconds; a busy machine serves the others within that
_HANGS = ("STUBBORN", "DEQUE", "SLEEP", "LOCK")
_KILLED = ("STUBBORN", "DEQUE")
_HOLDS_GIL = "DEQUE"  # nothing else runs in that worker, so it cannot hand its connections off
_TABLE = "[[listener]]\nbind = '127.0.0.1:0'\napp = '{}:{}'\n"


def several_apps(ground: Ground) -> None:
    """T14: requests of an app hang and its workers die; those of another one, of another protocol, go on."""
    loads = [ground.load(), ground.load()]
    hangs = _HANGS[: 1 if ground.size.name == "small" else 4] * ground.size.pick(1, 4)
    server = _serve(ground)
    ground.look(server)
    for is_resp, load in enumerate(loads):
        plan = Plan(
            address=server.addresses[is_resp],
            clients=4,
            first=1 + is_resp * _FIRST,
            is_resp=bool(is_resp),
            seed=ground.report.seed,
        )
        load.start(plan)
    ground.await_requests(_BETWEEN)
    replies: list[bytes] = []
    with ground.parked(server, 10):
        threads = [threading.Thread(target=_hang, args=(ground, server, hangs, replies))]
        threads[0].start()
        died = _let_workers_die(ground, server)
        threads[0].join()
    died_or_killed = died + sum(kind in _KILLED for kind in hangs)
    ground.until_whole(server, WORKERS + 1 + died_or_killed, WORKERS + 1)
    ground.await_requests(_BETWEEN)
    lines, resp = (load.finish() for load in loads)
    ground.account([*lines, *resp])
    _check(ground, replies, len(hangs))
    ground.innocent(server, died_or_killed)
    ground.look_again(server)
    ground.report.kills = died + len(hangs)
    ground.report.figures.update(lines=len(lines), resp=len(resp))


def _serve(ground: Ground) -> ServerProcess:
    app = APP.with_name("several_app.py")
    tables = "".join(_TABLE.format(app, name) for name in ("lines", "resp"))
    (ground.directory / "linepool.toml").write_text(tables)
    options = ("--request-timeout", str(_LIMIT), "--kill-grace", "2")
    # A worker more for what hangs; it is wanted by both apps.
    return ground.serve(*options, target=f"{app}:lines", bind=(), workers=WORKERS + 1)


def _let_workers_die(ground: Ground, server: ServerProcess) -> int:
    """Have workers end by a request of the app that speaks RESP, one after the other; return how many."""
    count = ground.size.pick(3, 30)
    for done in range(count):
        with server.connect(_RESP) as peer, contextlib.suppress(OSError):
            peer.ask(f"END {OWN_NUMBERS + _FIRST + done}\r")
        ground.until_whole(server, WORKERS + 2 + done, WORKERS + 1)
        ground.await_requests(_BETWEEN)
    return count


def _hang(
    ground: Ground, server: ServerProcess, kinds: tuple[str, ...], replies: list[bytes]
) -> None:
    """Send requests that hang to the app that speaks RESP, one after the other; note the replies."""
    for kind in kinds:
        reply = b""
        while (
            not reply
        ):  # its connection was in a worker that another request has ended: it was not begun
            with server.connect(_RESP) as peer, contextlib.suppress(OSError):
                peer.send(f"{kind}\r\n".encode())
                if kind == _HOLDS_GIL:
                    ground.note_stuck(server, f"resp:{kind}")
                reply = peer.line().encode()
        replies.append(reply)


def _check(ground: Ground, replies: list[bytes], hangs: int) -> None:
    report = ground.report
    report.check("requests that hung", len(replies), hangs)
    report.check(
        "... that ended otherwise than with an error of RESP",
        sum(not one.startswith(b"-ERR ") for one in replies),
    )
    if ground.scheme == "dispatch":  # a worker holds the connection that it serves, and no other
        report.check("requests of others lost that were not begun (L1)", report.lost["L1"])
