"""The table of commands in the README of the Redis example, from what both servers say of themselves.

``./dev python -m tests.clients.redis_table`` writes it.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import redis

from tests.clients.harness import redis_server
from tests.servers import EXAMPLES, run_server

README = EXAMPLES / "redis" / "README.md"
VERSION = "7.0"
_KINDS = {
    "string": "strings",
    "bitmap": "bits",
    "hash": "hashes",
    "list": "lists",
    "set": "sets",
    "sorted-set": "sorted sets",
    "stream": "streams",
    "hyperloglog": "HyperLogLog",
    "geo": "places (geo)",
    "generic": "keys",
    "transactions": "transactions",
    "pubsub": "publish/subscribe",
    "scripting": "scripts and functions",
    "connection": "connections",
    "server": "the server",
    "cluster": "cluster",
}
_INTERNAL = {"PFDEBUG", "PFSELFTEST", "RESTORE-ASKING", "PSYNC", "REPLCONF", "SYNC"}
_TABLE = re.compile(r"(?<=<!-- commands -->\n).*?(?=<!-- /commands -->)", re.S)


def kinds(port: int) -> dict[str, str]:
    """Return the kind of each command of Redis, and of each subcommand."""
    found = {}
    for name, facts in _pairs(_ask(port, "COMMAND", "DOCS")):
        about = dict(_pairs(facts))
        for one in (name, *(sub for sub, _ in _pairs(about.get("subcommands", [])))):
            found[one.upper().replace("|", " ")] = about["group"]
    return {name: kind for name, kind in found.items() if name not in _INTERNAL}


def served(port: int, known: Iterable[str]) -> set[str]:
    """Return which of these commands and subcommands the example serves."""
    names = {name.upper() for name, *_ in _ask(port, "COMMAND")}
    return {name for name in known if name.partition(" ")[0] in names and _is_known(port, name)}


def _is_known(port: int, name: str) -> bool:
    if " " in name:
        try:
            _ask(port, *name.split())  # most want more words, but say so only if they are served
        except redis.ResponseError as error:
            return "unknown subcommand" not in str(error).lower()
    return True


def table(theirs: Mapping[str, str], ours: set[str]) -> str:
    """Return the lines of the table: each kind of command, what is served and what not."""
    cells: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for name in sorted(theirs):
        container, _, subcommand = name.partition(" ")
        if subcommand and container not in ours:
            continue  # the command itself is named
        is_served = name in ours
        if not (subcommand and is_served):
            cells[theirs[name]][0 if is_served else 1].append(name)
    lines = ["| | served | not served |\n|---|---|---|\n"]
    for kind, title in _KINDS.items():
        both = [", ".join(names) or "none" for names in cells[kind]]
        lines.append(f"| {title} | {both[0]} | {both[1]} |\n")
    return "".join(lines)


def in_readme() -> str:
    """Return the table that the README has."""
    found = _TABLE.search(README.read_text())
    assert found, "the README has no place for the table"
    return found[0]


def _ask(port: int, *words: str) -> Any:
    with redis.Redis(port=port, protocol=2, decode_responses=True) as connection:
        connection.response_callbacks.clear()  # the reply as it is
        return connection.execute_command(*words)


def _pairs(words: list[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(words[::2], words[1::2], strict=True)


def current() -> str:
    """Return the table that the README should have."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            redis_server(directory) as real,
            run_server(EXAMPLES / "redis" / "redis_server.py", directory) as server,
        ):
            theirs = kinds(real)
            return table(theirs, served(server.port, theirs))


if __name__ == "__main__":
    lines = current()
    README.write_text(_TABLE.sub(lambda _: lines, README.read_text()))
