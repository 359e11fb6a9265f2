"""The state of a server as lines, for ``status``, ``stats``, ``stacks``, ``events`` and the control socket.

Light: these commands import it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


def state_as_lines(state: dict[str, Any]) -> list[str]:
    """Return the state for people: one fact per line, one line per worker."""
    lines = []
    for key, value in state.items():
        if key == "waiters":
            lines += waiters_as_lines(value)
        elif isinstance(value, dict):
            lines.append(f"{key} " + " ".join(f"{name}={fact}" for name, fact in value.items()))
        elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
            lines += [
                f"{key[:-1]} " + " ".join(f"{name}={fact}" for name, fact in item.items())
                for item in value
            ]
        else:
            lines.append(f"{key} {value}")
    return lines


def waiters_as_lines(waiters: Mapping[str, Any]) -> list[str]:
    """Return which requests wait without a worker, for people: a line for all, one per topic."""
    return [
        f"waiters requests={waiters['requests']} oldest_s={waiters['oldest_s']}",
        *(
            "topic " + " ".join(f"{name}={_word(fact)}" for name, fact in row.items())
            for row in waiters["topics"]
        ),
    ]


def stats_as_lines(found: dict[str, Any]) -> list[str]:
    """Return the figures for people: a line per command, one for the queue, one per slow request."""
    kinds = {"command": found["commands"], "queue": [found["queue"]], "slow": found["slowest"]}
    return [
        f"{kind} " + " ".join(f"{name}={fact}" for name, fact in row.items())
        for kind, rows in kinds.items()
        for row in rows
    ]


def stacks_as_lines(rows: list[dict[str, Any]], waiters: Mapping[str, Any] | None) -> list[str]:
    """Return them for people: a line per worker, and its stack below, the most recent call first.

    Args:
        rows: The workers.
        waiters: The requests that wait without one; None: that is not known.
    """
    lines = []
    for row in rows:
        facts = {key: row[key] for key in ("slot", "pid", "state", "command", "for_s")}
        facts["command"] = facts["command"] or "-"
        lines.append("worker " + " ".join(f"{key}={value}" for key, value in facts.items()))
        lines += [
            f'    File "{frame["file"]}", line {frame["line"]}, in {frame["function"]}'
            for frame in row["stack"]
        ]
        if row["no_stack"]:
            lines.append(f"    {row['no_stack']}")
    return lines + (waiters_as_lines(waiters) if waiters and waiters["requests"] else [])


def events_as_lines(records: list[dict[str, Any]], *, stacks: bool = False) -> list[str]:
    """Return incidents for people: a line for each with what is known of it.

    Args:
        records: The incidents.
        stacks: Show their stacks below, the most recent call first.
    """
    lines = []
    for row in records:
        facts = {
            "number": row["number"],
            "at": moment(row["last"]),
            "kind": row["kind"],
            **{name: row.get(name) for name in _OF_AN_EVENT},
        }
        if row["count"] > 1:
            facts["count"] = row["count"]
        if row["last"] > row["first"]:
            facts["since"] = moment(row["first"])
        facts["in"] = place(row)
        known = {name: fact for name, fact in facts.items() if fact not in (None, "")}
        lines.append("event " + " ".join(f"{name}={_word(fact)}" for name, fact in known.items()))
        lines += [f"    {line}" for line in more_of(row)]
        if stacks:
            lines += [
                f'    File "{one["file"]}", line {one["line"]}, in {one["function"]}'
                for one in row["stack"]
            ]
    return lines


_OF_AN_EVENT = (
    *("command", "client", "pid", "slot", "generation"),
    *("ran_s", "limit_s", "signal", "status", "id", "why"),
)


def moment(at: float) -> str:
    """Return a moment as the log has it: in UTC, to the millisecond."""
    shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{shown}.{int(at * 1000) % 1000:03d}Z"


def place(row: Mapping[str, Any]) -> str:
    """Return where an incident happened: function, file and line; "": that is not known."""
    if not row["stack"]:
        return ""
    call = row["stack"][0]
    return f"{call['function']} ({call['file']}:{call['line']})"


def more_of(row: Mapping[str, Any]) -> list[str]:
    """Return the further lines of why an incident happened."""
    return (row.get("why") or "").splitlines()[1:]


def _word(fact: object) -> str:
    """Return a fact, as one word or in quotes."""
    text = str(fact).partition("\n")[0]
    return repr(text) if " " in text else text
