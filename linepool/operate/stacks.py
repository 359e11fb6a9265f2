"""What ``linepool stacks`` shows: what each worker does now."""

from __future__ import annotations

import time
from typing import Any

from attrs import asdict

from linepool.master.master import Master
from linepool.master.stacks import Stack
from linepool.operate.report import status


def doing(master: Master) -> list[dict[str, Any]]:
    """Return what each worker does, as the master knows it: by slot, with keys that programs rely on."""
    now_ns = time.monotonic_ns()
    rows = []
    for worker in status(master)["workers"]:
        started_ns = master.board.slot(worker["slot"]).started_ns if worker["command"] else 0
        seconds = (now_ns - started_ns) / 1e9 if started_ns else worker["since_s"]
        kept = {key: worker[key] for key in ("slot", "pid", "state", "command")}
        rows.append({**kept, "for_s": round(seconds, 3), "timeout_s": worker["timeout_s"]})
    return rows


def with_stacks(rows: list[dict[str, Any]], stacks: dict[int, Stack]) -> list[dict[str, Any]]:
    """Return the rows with the stacks of the workers' main threads."""
    return [
        {
            **row,
            "stack": [asdict(frame) for frame in stacks[row["slot"]].frames],
            "no_stack": stacks[row["slot"]].why or None,
        }
        for row in rows
        if row["slot"] in stacks
    ]
