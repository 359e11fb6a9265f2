"""SLOWLOG and LATENCY: the slowest requests of the last minutes, as linepool keeps them."""

from __future__ import annotations

import time
from typing import Any

from application import app
from attrs import frozen
from db import Db
from layout import parse_int
from server_config import setting
from server_figures import Look
from transaction import Txn

from linepool import ClientError
from linepool.protocols.resp import OK, Status, Verbatim

_RESET = b"slowlog reset"


@frozen
class _Slow:
    ended: float
    micros: int
    command: str
    client: str

    def described(self) -> list[Any]:
        """Return the entry of SLOWLOG GET."""
        words = self.command.lower().split("|")
        number = int(self.ended * 100)  # the same whenever it is asked for
        return [number, int(self.ended), self.micros, words, self.client, ""]


def _slow_requests(t: Txn) -> list[_Slow]:
    """Return the slow requests since the last reset, the last one first."""
    least = int(setting(t, "slowlog-log-slower-than"))
    if least < 0:
        return []
    since = float(t.note(_RESET) or 0)
    now = time.time()
    found = [
        _Slow(now - row["ago_s"], round(row["took_s"] * 1e6), row["command"], row["client"])
        for row in Look.now(t).stats["slowest"]
    ]
    found = [one for one in found if one.micros >= least and one.ended > since]
    found.sort(key=lambda one: -one.ended)
    return found[: int(setting(t, "slowlog-max-len"))]


@app.handler("SLOWLOG|GET")
def slow_requests(db: Db, count: bytes = b"10") -> list[list[Any]]:
    """Return the slow requests of the last minutes: -1 for all."""
    number = parse_int(count)
    if number is None or number < -1:
        raise ClientError("count should be greater than or equal to -1")
    with db.read() as t:
        found = _slow_requests(t)
    return [one.described() for one in (found if number < 0 else found[:number])]


@app.handler("SLOWLOG|LEN")
def count_slow_requests(db: Db) -> int:
    """Count the slow requests of the last minutes."""
    with db.read() as t:
        return len(_slow_requests(t))


@app.handler("SLOWLOG|RESET")
def forget_slow_requests(db: Db) -> Status:
    """Leave out the slow requests that there were by now."""
    with db.write() as t:
        t.set_note(_RESET, str(time.time()).encode())
    return OK


@app.handler("LATENCY|LATEST")
def latest_events() -> list[object]:
    """List the latest slow events; only slow requests are kept, see SLOWLOG."""
    return []


@app.handler("LATENCY|HISTORY")
def history_of_event(event: str) -> list[object]:
    """List the samples of an event; there are none."""
    return []


@app.handler("LATENCY|RESET")
def reset_events(*events: str) -> int:
    """Forget events; return of how many there were samples."""
    return 0


@app.handler("LATENCY|GRAPH")
def graph_of_event(event: str) -> None:
    """Refuse, for there are no samples."""
    raise ClientError(f"No samples available for event '{event}'")


@app.handler("LATENCY|DOCTOR")
def advice() -> Verbatim:
    """Say where to look."""
    return Verbatim("SLOWLOG GET has the slowest requests; linepool top, and its page, say why.\n")


@app.handler("LATENCY|HISTOGRAM")
def histogram(db: Db, *commands: str) -> dict[str, Any]:
    """Return how long commands took: how many took at most so many microseconds."""
    wanted = {name.lower() for name in commands}
    with db.read() as t:
        found = Look.now(t).commands
    return {
        one.name: {
            "calls": one.calls,
            "histogram_usec": {
                max(1, round(one.quantiles[name] * 1e6)): round(one.calls * share)
                for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            },
        }
        for one in found
        if not wanted or one.name in wanted
    }
