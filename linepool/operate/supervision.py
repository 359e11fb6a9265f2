"""What the program that has started this process says in the environment: systemd, or one like it.

It says which descriptors it has opened for the process (sd_listen_fds(3)), where it wants to be told how the
server is (sd_notify(3)), and how often it wants a sign of life (sd_watchdog_enabled(3)).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, MutableMapping, Sequence

from attrs import evolve, field, frozen

from linepool.address import parse_address
from linepool.digits import is_whole
from linepool.errors import SetupError
from linepool.kernel.binding import Kind, kind_of
from linepool.master.loader_handle import loader_facts
from linepool.master.takeover import takeover_facts

log = logging.getLogger("linepool")

_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
_MOST_DIGITS = 3  # of LISTEN_FDS
_MOST_DIGITS_USEC = 20  # of an unsigned 64-bit number
_SOCKETS = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_NOTICES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


@frozen
class Passed:
    """A descriptor that the program has opened for this process.

    Attributes:
        name: Its name in LISTEN_FDNAMES; "": no names were given.
        kind: What it is. A descriptor without a name is taken for a listener until it is opened.
    """

    descriptor: int
    name: str = ""
    kind: Kind = "listener"

    @property
    def address(self) -> str:
        """What it is in ``bind``."""
        return f"fd://{self.descriptor}"

    @property
    def shown(self) -> str:
        """What the log calls it."""
        return f"systemd:{self.name}" if self.name else self.address


@frozen
class Supervision:
    """How this process is supervised.

    Attributes:
        passed: The descriptors that were opened for it.
        notify_socket: Where to tell how the server is, a path or ``@NAME``; "": nowhere.
        watchdog_s: Seconds within which a sign of life is wanted; 0: none is.
        warnings: A line for each variable that has no effect and should have one.
        for_exec: The variables that the process itself needs again if it executes another program in its
            place. LISTEN_FDS is not among them: it would be obeyed a second time, for its pid is unchanged.
    """

    passed: Sequence[Passed] = ()
    notify_socket: str = ""
    watchdog_s: float = 0.0
    warnings: Sequence[str] = ()
    for_exec: Mapping[str, str] = field(factory=dict)

    @property
    def default_bind(self) -> tuple[str, ...]:
        """The addresses to serve where ``bind`` is not given.

        Of descriptors with names, only listeners: others may come from the file descriptor store. If none
        is a listener, all sockets: the error says what is wrong with them.
        """
        listeners = [one.address for one in self.passed if one.kind == "listener"]
        return tuple(listeners or [one.address for one in self.passed if one.kind == "socket"])

    def resolved(self, bind: Sequence[str]) -> tuple[str, ...]:
        """Return addresses with the descriptors of each name, ``systemd:NAME``, in its place.

        Raises:
            SetupError: A name is unknown, or an address is given twice.
        """
        found: list[str] = []
        for text in bind:
            name = parse_address(text).name
            found += [one.address for one in self._named(name)] if name else [text]
        for text in found:
            if text.startswith("fd://") and found.count(text) > 1:
                raise SetupError(f"bind: the socket {text} is given twice, by number and by name")
        return tuple(found)

    def unserved(self, bind: Sequence[str]) -> list[Passed]:
        """Return the listeners that are not in the resolved addresses."""
        return [one for one in self.passed if one.kind == "listener" and one.address not in bind]

    def close_strays(self, bind: Sequence[str]) -> list[str]:
        """Close the descriptors that are neither listeners nor in the resolved addresses; return their names.

        They come from the manager's file descriptor store, where another program has left them.
        """
        strays = [one for one in self.passed if one.kind != "listener" and one.address not in bind]
        for one in strays:
            log.warning(
                "closed a descriptor that is not a listener fd=%d socket=%s",
                one.descriptor,
                ascii(one.name),
            )
            with contextlib.suppress(OSError):  # it is not open
                os.close(one.descriptor)
        return [one.name for one in strays]

    def _named(self, name: str) -> list[Passed]:
        if found := [one for one in self.passed if one.name == name]:
            return found
        problem = f"bind: no socket has the name {name!r}"
        if names := list(dict.fromkeys(one.name for one in self.passed if one.kind == "listener")):
            if any(names):
                raise SetupError(f"{problem}; there are {', '.join(filter(None, names))}")
            raise SetupError(f"{problem}: LISTEN_FDNAMES gives no names; use fd://N")
        why = next(iter(self.warnings), "LISTEN_FDS is not set: is there a .socket unit?")
        raise SetupError(f"{problem}: {why}")


UNSUPERVISED = Supervision()


def supervision_in(environment: Mapping[str, str]) -> Supervision:
    """Return what an environment says to this process."""
    warnings: list[str] = []
    passed = _passed(environment, warnings)
    path = environment.get("NOTIFY_SOCKET", "")
    if path and path[0] not in "/@":
        warnings.append(f"NOTIFY_SOCKET is not a path or @NAME: {path!r}")
        path = ""
    return Supervision(
        passed=passed,
        notify_socket=path,
        watchdog_s=_watchdog_s(environment, warnings) if path else 0.0,
        warnings=warnings,
        for_exec={name: environment[name] for name in _NOTICES if name in environment},
    )


def passed_on(supervision: Supervision) -> dict[str, object]:
    """Return what another program must be told of the descriptors that were opened for this master.

    That is a loader, or one that takes over.
    """
    return {"passed": [[one.descriptor, one.name, one.kind] for one in supervision.passed]}


def claim(environment: MutableMapping[str, str]) -> Supervision:
    """Return what an environment says to this process, and keep it all from its children."""
    told = loader_facts(environment)
    if told is not None:  # a loader: the descriptors are the master's
        for name in (*_SOCKETS, *_NOTICES):
            environment.pop(name, None)
        return Supervision([Passed(*one) for one in told["passed"]])
    told = takeover_facts(environment)
    if told is not None:  # LISTEN_FDS has been obeyed by the program that was here before
        for name in _SOCKETS:
            environment.pop(name, None)
        passed = [Passed(*one) for one in told["passed"]]
        supervision = evolve(supervision_in(environment), passed=passed)
    else:
        supervision = supervision_in(environment)
    for one in supervision.passed:
        with contextlib.suppress(OSError):  # it is not open
            os.set_inheritable(one.descriptor, False)
    for name in (*_SOCKETS, *_NOTICES):
        environment.pop(name, None)
    return supervision


def _passed(environment: Mapping[str, str], warnings: list[str]) -> list[Passed]:
    pid, count = environment.get("LISTEN_PID", ""), environment.get("LISTEN_FDS", "")
    if not count:
        return []
    if not is_whole(count, _MOST_DIGITS):
        warnings.append(f"LISTEN_FDS is not a number of sockets: {count!r}")
        return []
    if pid != str(os.getpid()):
        warnings.append(
            f"LISTEN_FDS is meant for the process {pid!r} (LISTEN_PID), this one is {os.getpid()}"
        )
        return []
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    given = environment.get("LISTEN_FDNAMES", "")
    names = given.split(":") if given else []
    if len(names) != len(descriptors):
        if names:
            warnings.append(f"LISTEN_FDNAMES does not have {count} names: {given!r}")
        return [Passed(descriptor) for descriptor in descriptors]
    return [
        Passed(descriptor, name, kind_of(descriptor))
        for descriptor, name in zip(descriptors, names, strict=True)
    ]


def _watchdog_s(environment: Mapping[str, str], warnings: list[str]) -> float:
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    if not is_whole(microseconds, _MOST_DIGITS_USEC) or not int(microseconds):
        warnings.append(f"WATCHDOG_USEC is not a number of microseconds: {microseconds!r}")
        return 0.0
    return int(microseconds) / 1e6
