"""What the environment variables say. Other variables than settings may begin with ``LINEPOOL_`` too."""

from __future__ import annotations

import re
from collections.abc import Mapping

from linepool.near import nearest
from linepool.settings import FIELDS

PREFIX = "LINEPOOL_"
# Kubernetes sets variables for each Service and container links for each container: of one with the name
# linepool or linepool-web, LINEPOOL_SERVICE_HOST, LINEPOOL_WEB_PORT_7000_TCP_ADDR, LINEPOOL_ENV_LANG ...
_OF_A_SERVICE = re.compile(r"(.*_)?(SERVICE|PORT|NAME|ENV)(_.*)?", re.DOTALL)
_CUTOFF = 0.7


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings in an environment, by name; an empty variable counts as not set."""
    return {
        name: value
        for variable, value in environment.items()
        if variable.startswith(PREFIX)
        and (name := variable.removeprefix(PREFIX).lower()) in FIELDS
        and value.strip()
    }


def misspelt_in(environment: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that is nearly a setting; it is ignored.

    What Kubernetes and container links set is left out.
    """
    names = [
        variable.removeprefix(PREFIX)
        for variable in sorted(environment)
        if variable.startswith(PREFIX)
    ]
    return [
        f"{ascii(PREFIX + name)[1:-1]} is not a setting; did you mean {PREFIX}{near.upper()}?"
        for name in names
        if name.lower() not in FIELDS
        and not _OF_A_SERVICE.fullmatch(name)
        and (near := nearest(name.lower(), FIELDS, _CUTOFF))
    ]
