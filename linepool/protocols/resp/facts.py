"""What COMMAND says of the commands of a RESP server: from their signatures, options and tables of facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from linepool.errors import SetupError
from linepool.protocols.base import Command
from linepool.protocols.resp.keys import KeySpec, specs_of
from linepool.protocols.resp.values import Status

_UNLIMITED = 1 << 30
_CATEGORIES = {  # of the flags that have one; the first of the list is @keyspace's
    "write": ("write",),
    "readonly": ("read",),
    "admin": ("admin", "dangerous"),
    "pubsub": ("pubsub",),
    "fast": ("fast",),
    "blocking": ("blocking",),
}
_OF_GROUP = {
    "generic": "keyspace",
    "sorted-set": "sortedset",
    "transactions": "transaction",
    "server": "",
    "cluster": "",
    "module": "",
    "pubsub": "pubsub",
}
CATEGORIES = (
    *("keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap"),
    *("hyperloglog", "geo", "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous"),
    *("connection", "transaction", "scripting"),
)


@frozen
class CommandFacts:
    """What COMMAND says of a command beside its arity.

    Attributes:
        group: Of COMMAND DOCS, such as ``string``.
        since: The version of Redis that had it first; "": none.
        flags: Such as ``write``.
        keys: Where its keys are.
        more: Categories of ACL that do not follow from group and flags.
    """

    group: str = "generic"
    since: str = ""
    flags: tuple[str, ...] = ()
    keys: tuple[KeySpec, ...] = ()
    more: tuple[str, ...] = ()

    @property
    def categories(self) -> list[str]:
        """The categories of ACL, each behind an ``@``."""
        found = list(self.more)
        own = _OF_GROUP.get(self.group, self.group)
        if own and not (own == "pubsub" and "pubsub" not in self.flags):
            found.append(own)
        for flag, names in _CATEGORIES.items():
            if flag in self.flags and not (flag == "readonly" and own == "scripting"):
                found += names
        found += [] if "fast" in self.flags else ["slow"]
        return [f"@{name}" for name in sorted(set(found), key=CATEGORIES.index)]


def read_facts(lines: Iterable[str]) -> dict[str, CommandFacts]:
    """Return a table of facts, by the commands' names.

    Each line has a name, a group, a version, flags with commas between them, specifications of keys, and
    categories such as ``@dangerous`` that do not follow from the others; ``-`` is in place of what there
    is none of. Empty lines, and those that begin with ``#``, do not count.

    Raises:
        SetupError: A line is of another form.
    """
    table = {}
    for line in lines:
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 4:
            raise SetupError(f"facts of a command need a group, a version and flags: {line!r}")
        name, group, since, flags, *rest = words
        keys = [word for word in rest if not word.startswith("@")]
        table[name.upper()] = CommandFacts(
            group,
            since.replace("-", ""),
            tuple(flags.replace("-", "").split(",")) if flags != "-" else (),
            tuple(map(KeySpec.parsed, keys)),
            tuple(word[1:] for word in rest if word.startswith("@")),
        )
    return table


def facts_of(name: str, entry: Command, known: Mapping[str, CommandFacts]) -> CommandFacts:
    """Return what is known of a command, given one of its names: the table first, then its options."""
    if name in known and (known[name].keys or "keys" not in entry.options):
        return known[name]
    flags = tuple(str(entry.options.get("flags", "")).split())
    keys = specs_of(entry.options["keys"]) if "keys" in entry.options else ()
    if "keys" not in entry.options:
        keys = _keys_by_name(entry, shift="|" in name)
    access = ("RO", "access") if "readonly" in flags else ("RW", "update")
    specs = [spec if spec.flags or not flags else _with_flags(spec, access) for spec in keys]
    if any(spec.is_counted or spec.word or spec.begin is None for spec in specs):
        flags = (*flags, "movablekeys")
    return CommandFacts(str(entry.options.get("group", "generic")), "", flags, tuple(specs))


def _keys_by_name(entry: Command, *, shift: bool) -> tuple[KeySpec, ...]:
    """Return where the keys are by the names of the parameters: ``key``, ``*keys``, ``numkeys``.

    Args:
        entry: The command.
        shift: It is a subcommand, so its first parameter is the second word behind the name.
    """
    first = 0
    for position, one in enumerate(entry.parameters, 2 if shift else 1):
        if one.name == "numkeys":
            return (KeySpec(position, is_counted=True),)
        if one.name in ("key", "keys"):
            first = first or position
            if one.kind == "many":
                return (KeySpec(first, -1),)
    return (KeySpec(first),) if first else ()


def _with_flags(spec: KeySpec, flags: tuple[str, ...]) -> KeySpec:
    return KeySpec(spec.begin, spec.last, spec.step, spec.limit, spec.word, spec.is_counted, flags)


def bounds(entry: Command) -> tuple[int, int]:
    """Return the least and the largest number of words that may follow a command."""
    least = sum(one.required for one in entry.parameters)
    if any(one.kind in ("many", "option", "flag") for one in entry.parameters):
        return least, _UNLIMITED
    return least, len(entry.parameters)


def arity(name: str, entry: Command) -> int:
    """Return how many words a request has, the name among them; below 0: so many at least."""
    least, most = bounds(entry)
    own = 2 if "|" in name.rstrip("|") else 1
    return least + own if least == most else -(least + own)


def usage(name: str, entry: Command) -> str:
    """Return a command with its words, as HELP shows it: without its container's name."""
    words = [name.rpartition("|")[2]]
    for one in entry.parameters:
        shown = f"<{one.name.replace('_', '-')}>"
        if one.kind == "many":
            shown += " ..."
        elif one.kind == "option":
            shown = f"{one.name.upper()} {shown}"
        elif one.kind == "flag":
            shown = one.name.upper()
        is_optional = not one.required or one.kind == "many"
        words.append(f"[{shown}]" if is_optional else shown)
    return " ".join(words)


def documented(name: str, entry: Command, facts: CommandFacts) -> dict[str, Any]:
    """Return the documentation of a command, as COMMAND DOCS has it."""
    docs: dict[str, Any] = {"summary": entry.doc.partition("\n")[0], "group": facts.group}
    if facts.since:
        docs["since"] = facts.since
    arguments = []
    for one in entry.parameters:
        kind = {"int": "integer", "float": "double"}.get(one.shown.split("(")[0], "string")
        argument: dict[str, Any] = {
            "name": one.name,
            "type": "key" if one.name in ("key", "keys") else kind,
        }
        if one.kind == "flag":
            argument["type"] = "pure-token"
        if one.kind in ("option", "flag"):
            argument["token"] = one.name.upper()
        flags = [Status("optional")] * (not one.required)
        flags += [Status("multiple")] * (one.kind == "many")
        if flags:
            argument["flags"] = flags
        arguments.append(argument)
    return {**docs, "arguments": arguments} if arguments else docs
