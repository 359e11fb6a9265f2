"""``linepool status``, ``linepool stats`` and ``linepool stacks`` at a terminal. Light, as ``tables``.

What a server sends may lack a key or have others: it may be of another version.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from linepool.operate.tables import (
    Painter,
    brief,
    columns,
    counted,
    cut,
    number,
    padded,
    seconds,
    size,
    table,
    width,
)
from linepool.operate.terminal import printable

_HEAD = ("SLOT", "PID", "GEN", "STATE", "CONNS", "REQUESTS", "BUSY", "MEMORY", "COMMAND")
_NUMBERS = ("SLOT", "PID", "GEN", "CONNS", "REQUESTS", "BUSY", "MEMORY")
_WAITERS_HEAD = ("REQUESTS", "WAITED", "COMMAND", "TOPIC")
_LONGEST_TOPIC = 40  # columns
_STATS_HEAD = ("COMMAND", "REQUESTS", "MISTAKES", "ERRORS", "LOST", "TIME", "P50", "P95", "P99")
_SLOW_HEAD = ("SLOWEST", "TOOK", "ENDED", "RESULT", "CLIENT")
_STATES = {"ready": "green", "busy": "yellow", "stopping": "yellow", "draining": "yellow"}
_LATE = 0.5  # share of its time limit from which a request is shown in red
# Counters that are worth a word only if they count something.
_TROUBLE = {
    "timeouts": "timed out",
    "kills": "killed",
    "crashes": "crashed",
    "refused": "refused",
    "braked": "braked",
    "dropped": "dropped",
    "denied": "denied",
    "limited": "over their rate",
    "handshakes_failed": "failed their TLS handshake",
}


def state_at_terminal(state: Mapping[str, Any]) -> list[str]:
    """Return the state of a server for a terminal."""
    paint, most = Painter(sys.stdout), columns()
    condition = clean(state["state"])
    up = f"up {seconds(state['uptime_s'])}"
    name = cut(clean(state["name"]), most - width(condition) - width(up) - 4)
    shown = [paint(name, "bold"), paint(condition, _STATES.get(condition, "red")), up]
    facts = _facts(state)
    label = max(map(width, facts))
    lines = ["  ".join(shown), ""]
    for name, texts in facts.items():
        for at, text in enumerate(_wrapped(texts, most - label - 2)):
            lines.append(f"{padded('' if at else name, label)}  {text}")
    if workers := state["workers"]:
        head, *rows = table(_HEAD, [_worker(row) for row in workers], most, _NUMBERS)
        painted = [
            paint(line, _colour_of(row)) if _colour_of(row) else line
            for line, row in zip(rows, workers, strict=True)
        ]
        lines += ["", paint(head, "faint"), *painted]
    return lines


def waiters_in_words(state: Mapping[str, Any]) -> list[str]:
    """Return which requests of a server wait without a worker, in parts of a sentence; []: none does."""
    waiters = state.get("waiters") or {"requests": 0}
    if not waiters["requests"]:
        return []
    topics = [
        f"{number(row['requests'])} for {_topic(row)} ({clean(row['command'])})"
        for row in waiters["topics"]
    ]
    return [*_waiters_head(waiters), *topics]


def _waiters_head(waiters: Mapping[str, Any]) -> list[str]:
    verb = "waits" if waiters["requests"] == 1 else "wait"
    texts = [f"{counted(waiters['requests'], 'request')} {verb} without a worker"]
    if waiters["topics"]:
        texts.append(f"the longest for {seconds(waiters['oldest_s'])}")
    return texts


def _topic(row: Mapping[str, Any]) -> str:
    return cut(clean(row["topic"]), _LONGEST_TOPIC)


def stacks_at_terminal(
    rows: Sequence[Mapping[str, Any]], state: Mapping[str, Any] | None = None
) -> list[str]:
    """Return what workers do, each with its stack, and what requests wait for, for a terminal."""
    paint, most = Painter(sys.stdout), columns()
    lines: list[str] = []
    for row in rows:
        doing = _since(row["state"], row["for_s"], row.get("timeout_s"))
        command = f" in {clean(row['command'])}" if row["command"] else ""
        head = cut(f"worker {row['slot']} (pid {row['pid']}): {doing}{command}", most)
        lines += ["", paint(head, "bold")] if lines else [paint(head, "bold")]
        for frame in row["stack"]:
            place = f"{clean(frame['file'])}:{frame['line']}"
            lines.append(f"  {clean(frame['function'])}  {paint(place, 'faint')}")
        if row["no_stack"]:
            lines.append(f"  {clean(row['no_stack'])}")
    return [*lines, *_waiters_table(state or {}, most)]


def _waiters_table(state: Mapping[str, Any], most: int) -> list[str]:
    """Return what requests wait for, below a blank line; []: none waits."""
    waiters = state.get("waiters") or {"requests": 0}
    if not waiters["requests"]:
        return []
    cells = [
        (number(row["requests"]), seconds(row["oldest_s"]), clean(row["command"]), _topic(row))
        for row in waiters["topics"]
    ]
    rows = table(_WAITERS_HEAD, cells, most - 2, ("REQUESTS", "WAITED")) if cells else []
    head = Painter(sys.stdout)(", ".join(_waiters_head(waiters)), "bold")
    return ["", head, *(f"  {row}" for row in rows)]


def stats_at_terminal(found: Mapping[str, Any]) -> list[str]:
    """Return the figures of commands, and the slowest requests, for a terminal."""
    paint, most = Painter(sys.stdout), columns()
    head, *rows = table(
        _STATS_HEAD, [_figures(row) for row in found["commands"]], most, _STATS_HEAD[1:]
    )
    lines = [paint(head, "bold"), *rows]
    if slowest := found["slowest"]:
        cells = [
            (
                clean(row["command"]),
                brief(row["took_s"]),
                f"{seconds(row['ago_s'])} ago",
                clean(row["result"]),
                clean(row["client"]) or "-",
            )
            for row in slowest
        ]
        head, *rows = table(_SLOW_HEAD, cells, most, ("TOOK", "ENDED"))
        lines += ["", paint(head, "bold"), *rows]
    return lines


def _figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    lost = row["killed"] + row["died"]
    return (
        clean(row["command"]),
        number(row["requests"]),
        number(row["client_error"]),
        number(row["server_error"] + row["timeout"]),
        number(lost),
        brief(row["handler_s"]),
        *(brief(row[key]) for key in ("p50_s", "p95_s", "p99_s")),
    )


def clean(value: object) -> str:
    """Return a value with everything escaped that could do more to the terminal than be shown."""
    return printable([str(value)], sys.stdout)


def _listener(one: Mapping[str, Any]) -> str:
    """Return a listener's address, and in brackets what it is for and how many clients wait."""
    app, name = one.get("app", ""), one.get("name", "")
    facts = [clean(name)] if name else []
    if app != name:
        facts.append(f"app {clean(app)}")
    if tls := one.get("tls"):
        facts.append("STARTTLS" if tls == "starttls" else "TLS")
    if one.get("proxy"):
        facts.append("PROXY")
    if one["backlog"]:
        facts.append(f"{number(one['backlog'])} of {number(one['backlog_max'])} waiting")
    more = f" ({', '.join(facts)})" if facts else ""
    return clean(one["address"]) + more


def _facts(state: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the lines above the workers: a label, and texts that are set apart by commas."""
    tally, counters, held = state["tally"], state["counters"], state["connections"]
    listeners = [_listener(one) for one in state["listeners"]]
    kinds = [f"{tally[kind]} {kind}" for kind in ("idle", "busy", "starting", "leaving")]
    pool = [f"{tally['total']} of {tally['min']}:{tally['max']}"]
    requests = [number(counters["requests"]), counted(counters["errors"], "error")]
    trouble = [
        f"{number(counters[key])} {word}" for key, word in _TROUBLE.items() if counters.get(key)
    ]
    if counters["saturated_s"]:
        trouble.append(f"saturated for {seconds(counters['saturated_s'])}")
    facts = {
        "server": [
            f"pid {state['pid']}",
            f"generation {state['generation']}",
            f"linepool {clean(state['version'])} ({clean(state['core'])})",
        ],
        "listening on": listeners,
        "scheme": [clean(state["scheme"])],
        "workers": pool + [kind for kind in kinds if not kind.startswith("0 ")],
        "connections": [f"{number(held['hot'])} in workers", f"{number(held['parked'])} parked"],
        "requests": requests,
        "waiters": waiters_in_words(state),
        "trouble": trouble,
        "refused": [
            f"{clean(one['command'])} for {seconds(one['left_s'])} more"
            f" ({counted(one['deaths'], 'worker')} died of it)"
            for one in state["brakes"]
        ],
    }
    return {name: texts for name, texts in facts.items() if texts}


def _wrapped(texts: Sequence[str], most: int) -> list[str]:
    """Return texts with commas between them, on as many lines as they need."""
    lines = [""]
    for at, text in enumerate(texts):
        part = text + ("," if at + 1 < len(texts) else "")
        if lines[-1] and width(lines[-1]) + 1 + width(part) > most:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + part
    return lines


def _worker(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["slot"]),
        str(row["pid"]),
        str(row["generation"]),
        _since(row["state"], _ran(row), row.get("timeout_s")),
        number(row["connections"]),
        number(row["requests"]),
        f"{row['busy_ratio']:.0%}",
        size(row["rss_bytes"]),
        clean(row["command"] or ""),
    ]


def _since(state: str, for_s: float, limit_s: float | None) -> str:
    limit = f" of {seconds(limit_s)}" if limit_s else ""
    return f"{clean(state)} {seconds(for_s)}{limit}"


def _ran(row: Mapping[str, Any]) -> float:
    """Return for how long a worker has run its request, or has been in its state without one."""
    ran: float | None = row.get("request_s")
    return row["since_s"] if ran is None else ran


def _colour_of(row: Mapping[str, Any]) -> str:
    limit_s = row.get("timeout_s")
    if limit_s and _ran(row) > _LATE * limit_s:
        return "red"
    return _STATES.get(row["state"], "")
