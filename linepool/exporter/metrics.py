"""The metrics in the text format of Prometheus, version 0.0.4. Pure: no I/O.

Names and units follow https://prometheus.io/docs/practices/naming/. No label comes from a client: commands
are those of the app. None has a pid or a slot: with recycling, each would be a new series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from linepool.exporter.source import Snapshot
from linepool.ipc.figures import BOUNDS_NS, DOUBLINGS, CommandFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = tuple(
    (number, f"{BOUNDS_NS[number] / 1e9:.9g}")
    for number in DOUBLINGS
    if 1e-4 < BOUNDS_NS[number] / 1e9 <= 64
)
"""Those of the histograms: the powers of two from 122 us to 64 s. Each is a series for each command."""

Sample = tuple[str, Mapping[str, str], float]
"""What follows the family's name, the labels, the value."""


def metrics(snapshot: Snapshot, *, is_up: bool, is_ready: bool) -> str:
    """Return all metrics of a server.

    Args:
        snapshot: The server at one moment.
        is_up: Its master answers.
        is_ready: As ``/readyz``.
    """
    lines: list[str] = []
    for name, kind, text, samples in _families(snapshot, is_up=is_up, is_ready=is_ready):
        rows = list(samples)
        if not rows:
            continue
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [
            f"{name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in rows
        ]
    return "\n".join(lines) + "\n"


def _families(
    snapshot: Snapshot, *, is_up: bool, is_ready: bool
) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    """Yield each family: its name, its type, its help and its samples."""
    state, usage = snapshot.state, snapshot.usage
    tally, counters, held = state["tally"], state["counters"], state["connections"]
    info = {"app": state["name"], "version": state["version"], "scheme": state["scheme"]}
    started_at = snapshot.wall - state["uptime_s"]
    yield "linepool_build_info", "gauge", "What serves.", [("", {**info, "core": state["core"]}, 1)]
    yield (
        "linepool_start_time_seconds",
        "gauge",
        "When the server was started, in seconds since the epoch.",
        [("", {}, round(started_at, 1))],
    )
    yield "linepool_up", "gauge", "Whether the master answers.", [("", {}, is_up)]
    yield "linepool_ready", "gauge", "Whether /readyz says so.", [("", {}, is_ready)]
    yield (
        "linepool_generation",
        "gauge",
        "How often the app was loaded.",
        [("", {}, state["generation"])],
    )
    states = ("starting", "idle", "busy", "leaving")
    yield "linepool_workers", "gauge", "Workers by state.", _by("state", tally, states)
    yield "linepool_workers_min", "gauge", "The least number of workers.", [("", {}, tally["min"])]
    yield "linepool_workers_max", "gauge", "The most workers.", [("", {}, tally["max"])]
    yield from _requests(snapshot.commands)
    yield (
        "linepool_queue_duration_seconds",
        "histogram",
        "How long what clients sent has waited until a worker read it.",
        _histogram(snapshot.queue, {}),
    )
    yield (
        "linepool_backlog_connections",
        "gauge",
        "Connections that wait in the kernel to be accepted.",
        [("", {"listener": one["address"]}, one["backlog"]) for one in state["listeners"]],
    )
    yield (
        "linepool_backlog_connections_max",
        "gauge",
        "How many the kernel lets wait.",
        [("", {"listener": one["address"]}, one["backlog_max"]) for one in state["listeners"]],
    )
    yield (
        "linepool_connections",
        "gauge",
        "Connections held: by workers, or by the parker.",
        _by("held_by", {"worker": held["hot"], "parker": held["parked"]}, ("worker", "parker")),
    )
    yield (
        "linepool_waiting_requests",
        "gauge",
        "Requests that wait for something without a worker.",
        [("", {}, state["waiters"]["requests"])],
    )
    for name, key, text in _COUNTERS:
        yield name, "counter", text, [("", {}, counters[key])] if key in counters else []
    reasons = {reason: counters[key] for reason, key in _EXITS.items()}
    yield (
        "linepool_worker_exits_total",
        "counter",
        "Workers that ended.",
        _by("reason", reasons, _EXITS),
    )
    spent = {"busy": snapshot.busy_s, "idle": snapshot.idle_s}
    yield (
        "linepool_worker_seconds_total",
        "counter",
        "Time of all workers, looked at once a second since the exporter began.",
        _by("state", spent, ("busy", "idle")),
    )
    yield (
        "linepool_resident_memory_bytes",
        "gauge",
        "Resident memory, with what processes share in each of them.",
        _by("process", usage.memory_bytes, usage.memory_bytes),
    )
    yield (
        "linepool_process_cpu_seconds_total",
        "counter",
        "Processor time since the exporter began.",
        _by("process", usage.cpu_s, usage.cpu_s),
    )
    yield (
        "linepool_open_fds",
        "gauge",
        "Open descriptors.",
        _by("process", usage.open_files, usage.open_files),
    )
    yield (
        "linepool_max_fds",
        "gauge",
        "How many descriptors a process may open.",
        [("", {}, usage.most_files)],
    )


_COUNTERS = (
    ("linepool_connections_total", "connections", "Connections taken."),
    ("linepool_connections_refused_total", "refused", "Connections refused: too many."),
    ("linepool_connections_denied_total", "denied", "Connections that the rules of access refuse."),
    ("linepool_connections_dropped_total", "dropped", "Connections lost with their process."),
    ("linepool_handshakes_failed_total", "handshakes_failed", "TLS handshakes that failed."),
    ("linepool_requests_limited_total", "limited", "Requests over the rate of their address."),
    ("linepool_requests_braked_total", "braked", "Requests for commands that workers die of."),
    ("linepool_worker_starts_total", "spawned", "Workers forked."),
    (
        "linepool_saturated_seconds_total",
        "saturated_s",
        "Time in which clients waited at the maximum.",
    ),
)
_EXITS = {"killed": "kills", "crashed": "crashes", "retired": "retired", "recycled": "recycled"}


def _requests(
    commands: Sequence[CommandFigures],
) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    served = [one for one in commands if one.count]
    yield (
        "linepool_requests_total",
        "counter",
        "Requests, by how they ended.",
        [
            ("", {"command": one.name, "outcome": outcome}, count)
            for one in served
            for outcome, count in {"ok": one.ok, **one.failed}.items()
        ],
    )
    yield (
        "linepool_request_duration_seconds",
        "histogram",
        "From when a worker took a request until its reply was ready.",
        [sample for one in served for sample in _histogram(one, {"command": one.name})],
    )


def _histogram(figures: CommandFigures, labels: Mapping[str, str]) -> list[Sample]:
    """Return the samples of a histogram. Its bounds are bounds of buckets, so no count is interpolated."""
    samples: list[Sample] = []
    below, next_bucket = 0, 0
    for number, text in _BOUNDS:
        below += sum(figures.buckets[next_bucket : number + 1])
        next_bucket = number + 1
        samples.append(("_bucket", {**labels, "le": text}, below))
    count = figures.count
    samples.append(("_bucket", {**labels, "le": "+Inf"}, count))
    return [*samples, ("_sum", labels, figures.sum_ns / 1e9), ("_count", labels, count)]


def _by(label: str, values: Mapping[str, float], keys: Iterable[str]) -> list[Sample]:
    return [("", {label: key}, values[key]) for key in keys]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, bool) or value == int(value) else repr(float(value))
