"""The page on the errors that clients read, from the exceptions that the source makes."""

from __future__ import annotations

import re

from site_pages.markdown import code, table
from site_pages.source_texts import PACKAGE, Called, calls

_HEAD = """\
# Errors that clients read

The texts of the errors that linepool itself replies, with `...` for values. The line protocol puts the kind
of the error before the text: `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`; other protocols have their own forms,
see [protocols](../protocols.md). What [handlers raise](../handlers.md#errors) is theirs.

"""
_PREFIXES = {
    "ClientError": "CLIENT_ERROR",
    "UsageError": "CLIENT_ERROR",
    "IncompleteError": "CLIENT_ERROR",
    "ServerError": "SERVER_ERROR",
    "NotRunError": "SERVER_ERROR",
    "DeadlineError": "SERVER_ERROR",
    "UnknownCommand": "ERROR",
}
_TITLES = {
    "protocols.line": "The line protocol",
    "protocols.memcache": "memcached's protocol",
    "protocols.resp": "Redis' protocol",
    "protocols.jsonrpc": "JSON-RPC",
    "protocols.dialogue": "Dialogues",
    "cache": "memcached from a store",
    "operate": "The control socket",
    "master": "The control socket",
}
_NOT_HERE = ("client.", "testing", "in_process")


def page() -> str:
    """Return the text of the page."""
    found: dict[str, set[tuple[str, str]]] = {"All protocols": set()}
    for file in sorted(PACKAGE.rglob("*.py")):
        for call in calls(file):
            if (
                call.name in _PREFIXES
                and re.search(r"[a-z]", call.texts[0])
                and not call.module.startswith(_NOT_HERE)
            ):
                found.setdefault(_title(call), set()).add((_PREFIXES[call.name], _shown(call)))
    lines = [_HEAD]
    for title, rows in found.items():
        cells = [(code(text), kind) for kind, text in sorted(rows)]
        lines += [f"## {title}\n\n", table(("text", "kind"), cells), "\n"]
    return "".join(lines)


def _title(called: Called) -> str:
    fitting = (title for part, title in _TITLES.items() if called.module.startswith(part))
    return next(fitting, "All protocols")


def _shown(called: Called) -> str:
    return re.sub(r"(\{\})+", "...", " ".join(called.texts[0].split()))
