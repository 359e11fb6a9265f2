"""The state of a server as lines: what ``linepool status``, ``stacks`` and the control socket show.

Light: these commands import it.
"""

from __future__ import annotations

from typing import Any


def state_as_lines(state: dict[str, Any]) -> list[str]:
    """Return the state for people: one fact per line, one line per worker."""
    lines = []
    for key, value in state.items():
        if isinstance(value, dict):
            lines.append(f"{key} " + " ".join(f"{name}={fact}" for name, fact in value.items()))
        elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
            lines += [
                f"{key[:-1]} " + " ".join(f"{name}={fact}" for name, fact in item.items())
                for item in value
            ]
        else:
            lines.append(f"{key} {value}")
    return lines


def stacks_as_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return them for people: a line per worker, and its stack below, the most recent call first."""
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
    return lines
