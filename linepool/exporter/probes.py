"""Liveness and readiness, as load balancers and Kubernetes ask for them. Pure: no I/O."""

from __future__ import annotations

from linepool.exporter.source import Snapshot

SILENT_S = 10.0
"""After this long without an answer the master's loop does not turn any more."""


def why_not_alive(snapshot: Snapshot | None, now: float, began: float) -> str:
    """Return why the server is not alive; "": it is.

    Args:
        snapshot: The last one; None: there is none yet.
        now: On the monotonic clock, in seconds.
        began: When the exporter has begun.
    """
    heard = snapshot.at if snapshot else began
    silent = now - heard
    return f"the master has not answered for {silent:.0f} s" if silent > SILENT_S else ""


def why_not_ready(
    snapshot: Snapshot | None, now: float, began: float, saturated_s: float = 0.0
) -> str:
    """Return why no more clients are to be sent to the server; "": they are.

    Args:
        snapshot: As of ``why_not_alive``; so are ``now`` and ``began``.
        now: Likewise.
        began: Likewise.
        saturated_s: Not ready if clients have waited for so long at the pool's maximum; 0: that does not
            count, for if the load is everywhere, all servers would leave at once.
    """
    if why := why_not_alive(snapshot, now, began):
        return why
    if snapshot is None:
        return "the exporter has only begun"
    state, tally = snapshot.state["state"], snapshot.state["tally"]
    if state != "ready":
        return f"the server is {state}"
    if not tally["idle"] + tally["busy"]:
        return "no worker is up"
    if saturated_s and snapshot.saturated_s >= saturated_s:
        return f"saturated for {snapshot.saturated_s:.0f} s"
    return ""
