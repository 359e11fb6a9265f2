"""What the environment variables say. Other variables than settings may begin with ``LINEPOOL_`` too."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Mapping, MutableMapping

from linepool.settings import FIELDS

_PREFIX = "LINEPOOL_"
# Kubernetes sets variables for each Service and container links for each container: of one with the name
# linepool or linepool-web, LINEPOOL_SERVICE_HOST, LINEPOOL_WEB_PORT_7000_TCP_ADDR, LINEPOOL_ENV_LANG ...
_OF_A_SERVICE = re.compile(r"(.*_)?(SERVICE|PORT|NAME|ENV)(_.*)?", re.DOTALL)
_CUTOFF = 0.7
_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
_MOST_DIGITS = 3  # of LISTEN_FDS


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings in an environment, by name; an empty variable counts as not set."""
    return {
        name: value
        for variable, value in environment.items()
        if variable.startswith(_PREFIX)
        and (name := variable.removeprefix(_PREFIX).lower()) in FIELDS
        and value.strip()
    }


def misspelt_in(environment: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that is nearly a setting; it is ignored.

    What Kubernetes and container links set is left out.
    """
    names = [
        variable.removeprefix(_PREFIX)
        for variable in sorted(environment)
        if variable.startswith(_PREFIX)
    ]
    return [
        f"{ascii(_PREFIX + name)[1:-1]} is not a setting; did you mean {_PREFIX}{near[0].upper()}?"
        for name in names
        if name.lower() not in FIELDS
        and not _OF_A_SERVICE.fullmatch(name)
        and (near := difflib.get_close_matches(name.lower(), FIELDS, n=1, cutoff=_CUTOFF))
    ]


def passed_sockets(environment: Mapping[str, str]) -> list[int]:
    """Return the descriptors that systemd has opened for this process (sd_listen_fds(3))."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not _is_count(count):
        return []
    return list(range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)))


def why_not_passed(environment: Mapping[str, str]) -> str:
    """Return why the sockets of LISTEN_FDS are not served; "": they are, or there are none."""
    pid, count = environment.get("LISTEN_PID", ""), environment.get("LISTEN_FDS", "")
    if not count:
        return ""
    if not _is_count(count):
        return f"LISTEN_FDS is not a number of sockets: {count!r}"
    if pid != str(os.getpid()):
        return (
            f"LISTEN_FDS is meant for the process {pid!r} (LISTEN_PID), this one is {os.getpid()}"
        )
    return ""


def claim_sockets(environment: MutableMapping[str, str]) -> None:
    """Keep the sockets that were passed to this process, and all mention of them, from its children."""
    for descriptor in passed_sockets(environment):
        with contextlib.suppress(OSError):  # it is not open
            os.set_inheritable(descriptor, False)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        environment.pop(name, None)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
