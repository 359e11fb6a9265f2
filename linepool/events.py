"""What the hooks of the server as a whole are given: plain data, which the master sends. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import fields, frozen

HOW = Literal["killed", "died", "recycled", "retired", "replaced", "stopped", "left"]


@frozen(kw_only=True)
class ServerReady:
    """The first workers are up.

    Attributes:
        generation: The number of the generation in force.
        workers: How many workers are ready.
        addresses: What the server listens on: ``HOST:PORT`` with the real port, ``unix:PATH``.
    """

    generation: int
    workers: int
    addresses: tuple[str, ...]


@frozen(kw_only=True)
class ReloadEnd:
    """A reload has ended.

    Attributes:
        generation: The number of the generation in force: the new one, or the old one if the reload failed.
        workers: How many workers it has.
        seconds: How long the reload took.
        failure: Why it failed; "": it did not.
    """

    generation: int
    workers: int
    seconds: float
    failure: str = ""


@frozen(kw_only=True)
class WorkerEnd:
    """A worker has ended, and is reaped: its pid may soon be that of another process.

    Attributes:
        pid: Its pid.
        slot: Its slot; the worker that takes its place may have the same.
        generation: The number of its generation.
        how: ``killed``: by the master. ``died``: by itself, in a crash, or killed by the kernel or another
            process. ``recycled``: it was replaced for its requests, age or memory. ``retired``: the pool
            needs it no more, or is drained. ``replaced``: a reload has taken place. ``stopped``: the server
            stops. ``left``: of its own accord.
        why: What the log says of it: of a kill its reason, of a death ``signal SIGSEGV`` or
            ``exit status 1``, of a recycled worker the setting; "": there is nothing to say.
        command: The command of the request that was in flight; "": none was.
        requests: How many requests it has served.
        seconds: How long it has lived.
    """

    pid: int
    slot: int
    generation: int
    how: HOW
    why: str = ""
    command: str = ""
    requests: int = 0
    seconds: float = 0.0


KINDS: Mapping[str, Any] = {
    "when_ready": ServerReady,
    "on_reload": ReloadEnd,
    "on_worker_end": WorkerEnd,
    "on_stop": None,
}
"""The hooks of the server as a whole, by name, with the class of what they are given; None: nothing."""


def event_of(name: str, facts: Mapping[str, Any]) -> Any:
    """Return what the hooks of a name are given; another version may have sent more facts.

    Args:
        name: Of the hook.
        facts: What there is to say, for JSON.

    Raises:
        KeyError: No hook has that name.
        TypeError: A fact is missing.
    """
    kind = KINDS[name]
    if kind is None:
        return None
    known = {field.name for field in fields(kind)}
    given = {name: fact for name, fact in facts.items() if name in known}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
