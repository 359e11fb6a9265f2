"""The page on the lines of the log, from the calls of the logger in the source."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from site_pages.markdown import code, table
from site_pages.source_texts import PACKAGE, Called, calls

_HEAD = """\
# Lines of the log

Every event of the logger `linepool`: its text, with `...` for values, its level, and the module that writes
it. A fact `name=...` is a field of its own in JSON. [Lines of the log](../operating.md#lines-of-the-log) says
what they mean.

"""
_LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "log": "as its cause",
}
_LOGGERS = ("log", "_log")
_VALUE = re.compile(r"(?:%[-+ #0]*\d*(?:\.\d+)?[a-z]|\{\})+")
_PARTS = {
    "master": "The master",
    "loader": "The loader and the observer",
    "worker": "A worker",
    "parker": "The parker",
    "exporter": "The exporter",
    "bridge": "The bridge",
    "watcher": "The watcher",
    "client": "A client",
    "operate": "The server as a whole",
}


@frozen(order=True)
class Event:
    """An event of the log."""

    text: str
    level: str
    module: str


def page() -> str:
    """Return the text of the page."""
    found = events()
    lines = [_HEAD]
    for part, title in {**_PARTS, "": "Handlers, connections and resources"}.items():
        rows = [one for one in found if _part(one.module) == part]
        cells = [(code(one.text), one.level, code(f"linepool.{one.module}")) for one in rows]
        lines += (
            [f"## {title}\n\n", table(("line", "level", "module"), cells), "\n"] if rows else []
        )
    return "".join(lines)


def events() -> list[Event]:
    """Return all events, each once for each module that writes it."""
    files = sorted(PACKAGE.rglob("*.py"))
    return sorted({event for file in files for call in calls(file) for event in _events(call)})


def _events(called: Called) -> Iterator[Event]:
    text = _VALUE.sub("...", template(called)).replace("%%", "%")
    if text.strip(" ."):
        yield Event(text, _LEVELS[called.name], called.module)


def template(called: Called) -> str:
    """Return the format string of a call that writes to the log; "": it is another call."""
    if not is_of_logger(called):
        return ""
    return called.texts[1 if called.name == "log" else 0]


def is_of_logger(called: Called) -> bool:
    """Whether a call writes to the log."""
    owner = getattr(called.call.func, "value", None)
    name = getattr(owner, "id", getattr(getattr(owner, "func", None), "id", ""))
    return called.name in _LEVELS and name in _LOGGERS


def _part(module: str) -> str:
    folder = module.partition(".")[0] if "." in module else ""
    return folder if folder in _PARTS else ""
