"""The commands of the command line: what each is for, and which module has it.

Light: the command line imports it for each command.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from linepool.near import nearest


class Command(NamedTuple):
    """A command.

    Attributes:
        module: Of ``linepool.operate``; its ``add_to`` adds the command to the command line.
        summary: What it does, for ``linepool --help``.
    """

    module: str
    summary: str


GROUPS: Mapping[str, Mapping[str, Command]] = {
    "serve": {
        "new": Command("new_command", "make a project: an app with tests, settings, and an image"),
        "run": Command("run_command", "serve an app"),
        "check": Command("check_command", "show an app's commands and the effective settings"),
        "schema": Command("schema_command", "describe an app's commands for programs, as JSON"),
        "unit": Command("unit", "print a systemd unit for a server"),
    },
    "ask a running server": {
        "status": Command("orders", "show its state"),
        "top": Command("top_command", "show it at a glance, again every second"),
        "stats": Command("orders", "show how often and how fast each command was served"),
        "stacks": Command("orders", "show what each worker is doing now"),
        "events": Command("events_command", "show its last incidents: kills, crashes, timeouts"),
        "health": Command("health", "check that it is ready (exit status 0) or not (1)"),
    },
    "call a server": {
        "call": Command("call_command", "call a command, and print what it returns"),
        "shell": Command("shell_command", "call commands at a prompt, with completion and help"),
        "stub": Command("stub_command", "print a typed module that calls an app's commands"),
    },
    "control a running server": {
        "reload": Command("orders", "load code and settings anew"),
        "upgrade": Command("orders", "replace linepool or Python itself"),
        "scale": Command("orders", "resize the pool"),
        "drain": Command("orders", "have its workers finish and leave"),
        "reopen": Command("orders", "open the log file anew"),
        "kill": Command("orders", "kill one worker"),
        "deny": Command("ban_commands", "refuse the clients of a network for a while"),
        "allow": Command("ban_commands", "serve the clients of a denied network again"),
        "stop": Command("orders", "stop it after its in-flight requests"),
    },
    "develop": {
        "simulate": Command("simulate_command", "simulate how a pool scales under a load"),
        "config-schema": Command(
            "config_schema", "print a JSON Schema of linepool.toml, for editors"
        ),
        "completion": Command("completion", "print a script that completes this in a shell"),
    },
}

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
# What other servers and service managers call them.
_ELSEWHERE = {
    "serve": "run",
    "init": "new",
    "create": "new",
    "start": "run",
    "dev": "run",
    "restart": "reload",
    "ps": "status",
    "monitor": "top",
    "dashboard": "top",
    "info": "status",
    "ping": "health",
    "incidents": "events",
    "ban": "deny",
    "block": "deny",
    "unban": "allow",
    "shutdown": "stop",
    "quit": "stop",
    "help": "--help",
    "version": "--version",
}


def wrong_command(word: str) -> str:
    """Return what is wrong with the first word of a command line, and what would be right."""
    if word.startswith("-"):
        return f"the command comes first, then its options: linepool run TARGET {word} ..."
    near = _ELSEWHERE.get(word) or nearest(word, COMMANDS)
    if near:
        return f"unknown command {word!r}; did you mean {near}?"
    if ":" in word or "." in word or os.path.exists(word):
        return f"unknown command {word!r}; to serve it: linepool run {word}"
    return f"unknown command {word!r}; choose one of {', '.join(COMMANDS)}"
