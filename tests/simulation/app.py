"""The app that simulated workers serve: its handlers tell the world what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import linepool
from linepool.errors import RequestTimeout
from linepool.facts import Answers, AppFacts, CommandFacts
from tests.simulation.machine import here, machine

if TYPE_CHECKING:
    from tests.simulation.account import Account

_LASTS_NS = 2_000_000_000

app = linepool.App("simulated")
account: list[Account] = []
"""That of the world that runs."""


@app.handler
def do(number: int) -> str:
    """Reply at once."""
    account[-1].begins(number, here())
    account[-1].ends(number)
    return f"DONE {number}"


@app.handler
def slow(number: int, ms: int, times: int = 0) -> str:
    """Reply after some time; the exception of the time limit is caught some times."""
    account[-1].begins(number, here())
    kernel = machine.kernel
    until_ns = kernel.now_ns + ms * 1_000_000
    try:
        while kernel.now_ns < until_ns:
            try:
                kernel.sleep((until_ns - kernel.now_ns) / 1e9)
            except RequestTimeout:
                account[-1].times_out(number)
                if not times:
                    raise
                times -= 1
    finally:
        account[-1].ends(number)
    return f"DONE {number}"


@app.handler
def last(number: int, what: str) -> str:
    """Reply when something is just about to be done about this request: "raise" or "kill"."""
    account[-1].begins(number, here())
    until_ns = machine.kernel.now_ns + _LASTS_NS
    has_timed_out = True
    while has_timed_out:
        has_timed_out = False
        try:
            account[-1].await_end(here(), what, until_ns)
        except RequestTimeout:
            has_timed_out = True
            account[-1].times_out(number)
    account[-1].ends(number)
    return f"DONE {number}"


@app.handler
def put(number: int, queue: str, waiters: linepool.Waiters) -> str:
    """Add an item to a queue."""
    account[-1].begins(number, here())
    account[-1].put(queue, number)
    waiters.notify(queue)
    account[-1].ends(number)
    return f"DONE {number}"


@app.handler
def take(
    number: int, queue: str, other: str, waited: linepool.Waited, seconds: float
) -> str | linepool.Wait:
    """Take an item out of a queue or another one, or wait for one."""
    account[-1].looks(number, here())
    machine.kernel.tick()
    item = account[-1].take((queue, other), waited)
    account[-1].ends(number)
    if item:
        return f"DONE {number}"
    topics = (queue, other) if queue != other else (queue,)
    return linepool.Wait(*topics, timeout=seconds, then=f"NONE {number}")


service = app.freeze()
resources = app._resources.resolved(app.protocol)
facts = AppFacts(
    "simulated",
    tuple(CommandFacts(entry.shown, None, "handler", False) for entry in service.entries),
    log_lines=False,
    publishes=False,
    answers=Answers(dict.fromkeys(("too many connections",), b"SERVER_ERROR\r\n"), greets=False),
    has_disconnect_hook=False,
)
