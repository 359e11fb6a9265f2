"""The page on metrics: what the exporter of a server says, asked of one."""

from __future__ import annotations

import http.client
import re
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from attrs import define, field

import linepool
from linepool.testing import serve
from site_pages.markdown import code, escaped, table

_HEAD = """\
# Metrics

What `/metrics` of a server with the setting [`http`](../settings.md#http) says, in the text format of
Prometheus. [Metrics and probes over HTTP](../operating.md#metrics-and-probes-over-http) has the setup.

"""
_TAIL = """
A histogram is three series: `_bucket` with the label `le`, `_sum` and `_count`. The labels `command` and
`listener` have names of the app's commands and the addresses that it listens on; none has text that a client
has sent.
"""
_LINE = re.compile(r"(?:# (HELP|TYPE) )?(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? (.+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_OF_ANY_VALUE = ("app", "command", "core", "listener", "scheme", "version")
_TIMEOUT = 40.0  # seconds; only there to fail


@define
class Family:
    """What is known of a metric."""

    kind: str = ""
    text: str = ""
    labels: dict[str, list[str]] = field(factory=dict)


def page() -> str:
    """Return the text of the page."""
    rows = [
        (code(name), one.kind, "<br>".join(_labels(one)), escaped(one.text))
        for name, one in families(scraped()).items()
    ]
    return _HEAD + table(("metric", "type", "labels", "meaning"), rows) + _TAIL


def families(text: str) -> dict[str, Family]:
    """Return the metrics of a text that an exporter has served."""
    found: dict[str, Family] = {}
    for line in text.splitlines():
        parts = _LINE.fullmatch(line)
        assert parts is not None, line
        what, name, labels, rest = parts.groups()
        if what:
            name = line.split()[2]
            one = found.setdefault(name, Family())
            one.text, one.kind = (rest, one.kind) if what == "HELP" else (one.text, rest)
        else:
            known = found[line.partition("{")[0].split()[0]] if name not in found else found[name]
            _note(known, _LABEL.findall(labels or ""))
    return found


def scraped() -> str:
    """Return the metrics of a server that has served a request."""
    app = linepool.App("shop")

    @app.handler
    def price(item: str) -> int:
        return len(item)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "http"
        settings = {"control": f"{folder}/control", "log_file": f"{folder}/log"}
        with serve(app, http=f"unix:{path}", **settings) as server:
            assert server.ask("PRICE tea") == "3"
            give_up_at = time.monotonic() + _TIMEOUT
            while "linepool_requests_total" not in (text := _asked(path)):
                assert time.monotonic() < give_up_at, text
                time.sleep(0.05)
            return text


def _asked(path: Path) -> str:
    """Return the metrics; "": the exporter does not serve yet."""
    connection = http.client.HTTPConnection("localhost")
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_TIMEOUT)
        connection.sock.connect(str(path))
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def _note(family: Family, labels: Iterable[tuple[str, str]]) -> None:
    for name, value in labels:
        values = family.labels.setdefault(name, [])
        if value not in values and name not in _OF_ANY_VALUE:
            values.append(value)


def _labels(family: Family) -> Iterable[str]:
    for name, values in family.labels.items():
        if name != "le":
            yield code(name) + (f": {', '.join(values)}" if values else "")
