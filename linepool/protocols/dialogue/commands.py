"""What a dialogue knows of a command: a built-in one, states, and checks before a handler is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from linepool.errors import SetupError, UsageError
from linepool.protocols.base import Command, Request

_NEXT = ("to", "fails_to")


def noop(*_ignored: str) -> None:
    """Do nothing."""


def states_of(command: Command) -> tuple[str, ...]:
    """Return the states in which a command is allowed; empty: in all."""
    states: Any = command.options.get("when", ())
    return (states,) if isinstance(states, str) else tuple(states)


def check_commands(commands: Sequence[Command], first_state: str) -> None:
    """Check what the handlers of an app say of states and data blocks.

    Raises:
        SetupError: No command leads to a state, or a block is not as a dialogue has it.
    """
    options = [one.options for one in commands]
    reached = {first_state, *(str(one[key]) for one in options for key in _NEXT if key in one)}
    for command in commands:
        name = command.names[0]
        for state in states_of(command):
            if state not in reached:
                raise SetupError(f"command {name}: no command leads to the state {state!r}")
        if command.size_word is not None:
            raise SetupError(
                f"command {name}: a dialogue's data block ends with a dot; use body() without a size"
            )
        if "fails_to" in command.options and command.body is None:
            raise SetupError(f"command {name}: fails_to is for a data block; it has no body()")


def count_error(request: Request) -> UsageError | None:
    """Return the error of a command with too few or too many words for its handler."""
    parameters = [one for one in request.command.parameters if one.kind != "body"]
    least = sum(one.required for one in parameters)
    is_unlimited = any(one.kind in ("many", "option", "flag") for one in parameters)
    if len(request.words) < least:
        return UsageError(f"{parameters[len(request.words)].name} is missing.", "missing")
    if len(request.words) > len(parameters) and not is_unlimited:
        given = len(request.words)
        return UsageError(
            f"too many arguments: {given} given, at most {len(parameters)}.", "surplus"
        )
    return None
