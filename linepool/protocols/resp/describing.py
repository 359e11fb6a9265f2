"""COMMAND and its subcommands, and HELP of each command that has subcommands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from linepool.errors import ClientError
from linepool.protocols.base import Builtin, Command
from linepool.protocols.resp.facts import (
    CATEGORIES,
    CommandFacts,
    arity,
    bounds,
    documented,
    facts_of,
    usage,
)
from linepool.protocols.resp.keys import simple_range
from linepool.protocols.resp.parser import RespParser
from linepool.protocols.resp.values import Status
from linepool.pubsub.glob import matches
from linepool.session import Verb

_NO_KEYS = "The command has no key arguments"


def command(resp: RespParser) -> list[Any]:
    """Describe all commands."""
    return [_info(resp, name) for name in names_of(resp)]


def count(resp: RespParser) -> int:
    """Return the number of commands."""
    return len(names_of(resp))


def list_names(resp: RespParser, *words: bytes) -> list[str]:
    """List the names of all commands and subcommands, or of some.

    The words are FILTERBY, then MODULE, ACLCAT or PATTERN, and what that must be.
    """
    names = names_of(resp)
    for top, subs in resp.containers.items():  # each has HELP, whether the app serves it or not
        names += [f"{top.decode()}|{sub}" for sub in dict.fromkeys((*subs, "HELP"))]
    if not words:
        return [name.lower() for name in names]
    upper = [word.upper() for word in words]
    if len(words) != 3 or upper[0] != b"FILTERBY":
        raise ClientError("syntax error")
    if upper[1] == b"MODULE":
        return []
    if upper[1] == b"PATTERN":
        return [name.lower() for name in names if matches(words[2].lower(), name.lower().encode())]
    if upper[1] == b"ACLCAT":
        return in_category(resp, words[2].decode("utf-8", "replace"), names)
    raise ClientError("syntax error")


def in_category(resp: RespParser, category: str, names: Iterable[str] | None = None) -> list[str]:
    """Return which commands are in a category of ACL; of all that there are, unless some are given."""
    if category.lower() not in CATEGORIES:
        return []
    wanted = f"@{category.lower()}"
    if names is None:
        names = names_of(resp)
    return [name.lower() for name in names if wanted in facts(resp, name).categories]


def info(resp: RespParser, *names: str) -> list[Any]:
    """Describe commands: arity, flags, positions of the keys."""
    if not names:
        return command(resp)
    return [_info(resp, name.upper()) for name in names]


def docs(resp: RespParser, *names: str) -> dict[str, Any]:
    """Return the documentation of commands."""
    found = {}
    for name in [name.upper() for name in names] or names_of(resp):
        if said := _docs(resp, name):
            found[name.lower()] = said
    return found


def keys(resp: RespParser, command: bytes, word: bytes, *words: bytes) -> list[bytes]:
    """Return the keys of a request."""
    request = [command, word, *words]
    return [request[at] for at, _ in _found(resp, request)]


def keys_and_flags(resp: RespParser, command: bytes, word: bytes, *words: bytes) -> list[Any]:
    """Return the keys of a request, and what the command does with each."""
    request = [command, word, *words]
    return [
        [request[at], _statuses(_certain(flags, request))] for at, flags in _found(resp, request)
    ]


def _certain(flags: tuple[str, ...], request: list[bytes]) -> tuple[str, ...]:
    """Return what a request does with a key, where that depends on its further words."""
    if "variable_flags" not in flags:
        return flags
    verb, options = request[0].upper(), {word.upper() for word in request[2:]}
    if verb == b"SET" and b"GET" not in options:
        return ("OW", "update")
    if verb == b"BITFIELD" and not options & {b"SET", b"INCRBY"}:
        return ("RO", "access")
    return tuple(flag for flag in flags if flag != "variable_flags")


def help_(resp: RespParser, verb: Verb) -> list[Status]:
    """Show this."""
    top = verb.partition("|")[0].upper()
    lines = [f"{top} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    if (alone := resp.commands.get(f"{top}|".encode())) is not None:
        lines += ["(no subcommand)", f"    {alone.doc.partition(chr(10))[0]}"]
    for sub in resp.containers.get(top.encode(), ()):
        name = f"{top}|{sub}"
        if sub != "HELP":
            entry = resp.commands[name.encode()]
            lines.append(usage(name, entry))
            lines += [f"    {line}".rstrip() for line in entry.doc.splitlines() if line]
    return [Status(line) for line in [*lines, "HELP", "    Print this help."]]


DESCRIBING: tuple[Builtin, ...] = (
    (("COMMAND|",), command),
    (("COMMAND|COUNT",), count),
    (("COMMAND|LIST",), list_names),
    (("COMMAND|INFO",), info),
    (("COMMAND|DOCS",), docs),
    (("COMMAND|GETKEYS",), keys),
    (("COMMAND|GETKEYSANDFLAGS",), keys_and_flags),
    (("COMMAND|HELP",), help_),
)


def names_of(resp: RespParser) -> list[str]:
    """Return the names of all commands, aliases and commands that have subcommands among them."""
    plain = (name.decode() for name in resp.commands if b"|" not in name)
    tops = (top.decode() for top in resp.containers)
    return list(dict.fromkeys((*plain, *tops)))


def facts(resp: RespParser, name: str) -> CommandFacts:
    """Return what is known of a command, given its name."""
    entry = resp.commands.get(name.encode(), resp.commands.get(f"{name}|".encode()))
    if entry is None:  # only its subcommands do anything
        known = resp.facts.get(name)
        return CommandFacts(known.group if known else "generic")
    return facts_of(name, entry, resp.facts)


def find(resp: RespParser, words: Sequence[bytes]) -> tuple[str, Command] | None:
    """Return the name and the entry of the command of a request, or None."""
    request = resp.request(list(words))
    if request.command is None or request.command is resp.unknown:
        return None
    return request.verb.upper().decode(), request.command


def _found(resp: RespParser, words: Sequence[bytes]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the position of each key of a request, and what the command does with it.

    Raises:
        ClientError: There is no such command, it has no keys, or the words do not fit.
    """
    command = find(resp, words)
    if command is None:
        raise ClientError("Invalid command specified")
    name, entry = command
    known = facts(resp, name)
    if not known.keys:
        raise ClientError(_NO_KEYS)
    least, most = bounds(entry)
    given = len(words) - (2 if "|" in name else 1)
    if not least <= given <= most:
        raise ClientError("Invalid number of arguments specified for command")
    try:
        found = [(at, spec.flags) for spec in known.keys for at in spec.positions(words)]
    except ValueError:
        raise ClientError("Invalid arguments specified for command") from None
    if not found and "no_mandatory_keys" not in known.flags:
        raise ClientError("Invalid arguments specified for command")
    yield from found


def _info(resp: RespParser, name: str) -> list[Any] | None:
    """Return the ten fields of COMMAND INFO in Redis 7."""
    encoded = name.encode()
    subs = () if encoded in resp.commands else resp.containers.get(encoded, ())
    entry = resp.commands.get(encoded, resp.commands.get(encoded + b"|"))
    if (entry is None and not subs) or name.endswith("|"):
        return None
    known = facts(resp, name)
    number = arity(name, entry) if entry is not None else -2
    return [
        name.lower(),
        number if not (subs and entry is not None) else -1,
        _statuses(known.flags),
        *simple_range(known.keys),
        _statuses(known.categories if entry is not None else ["@slow"]),
        [],
        [{"flags": _statuses(spec.flags), **spec.described()} for spec in known.keys],
        [_info(resp, f"{name}|{sub}") for sub in subs],
    ]


def _docs(resp: RespParser, name: str) -> dict[str, Any] | None:
    encoded = name.encode()
    subs = () if encoded in resp.commands else resp.containers.get(encoded, ())
    entry = resp.commands.get(encoded, resp.commands.get(encoded + b"|"))
    if name.endswith("|"):
        return None
    if entry is not None:
        said = documented(name, entry, facts(resp, name))
    elif subs:
        known = facts(resp, name)
        said = {"summary": "A command with subcommands.", "group": known.group}
    else:
        return None
    if subs:
        said["subcommands"] = {
            f"{name}|{sub}".lower(): _docs(resp, f"{name}|{sub}") for sub in subs
        }
    return said


def _statuses(words: Iterable[str]) -> Any:
    """Return words as COMMAND sends them: a set, of simple strings, in their order."""
    return dict.fromkeys(map(Status, words)).keys()
