"""``linepool health``: whether a server is ready, for the probes of containers and supervisors.

Light: a probe runs every few seconds, on the processors that serve.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from linepool.errors import SetupError
from linepool.operate import remote
from linepool.operate.chosen_server import add_control, control_of
from linepool.operate.outcome import add_json, as_json
from linepool.operate.terminal import printable

_TIMEOUT_S = 2.0
_DESCRIPTION = (
    "Check that a running server answers and is ready: its first workers have come up, one at least is up"
    " now, and the server is neither drained nor stopping. A saturated server is ready."
)
_EXAMPLES = "examples:\n  linepool health\n  linepool health --live --control /run/sums.sock"


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("health", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument(
        "--live",
        action="store_true",
        help="only check that it answers; true also while it starts, is drained or stops",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        default=_TIMEOUT_S,
        help=f"how long to wait for its answer, in seconds (default: {_TIMEOUT_S:g})",
    )
    add_json(parser)
    add_control(parser)
    parser.set_defaults(run=_check, parser=parser)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be a number of seconds up to 3600, not {text!r}")
    return seconds


def _check(options: argparse.Namespace) -> int:
    """Print the server's condition, or raise.

    Raises:
        SetupError: It does not answer, or is not ready.
    """
    if options.json:
        return as_json(lambda: _condition(options))
    found = _condition(options)
    workers = "worker" if found["workers"] == 1 else "workers"
    print(printable([f"{found['state']}: {found['workers']} {workers}"], sys.stdout))
    return 0


def _condition(options: argparse.Namespace) -> dict[str, Any]:
    """Return the server's state, and how many workers are up.

    Raises:
        SetupError: It does not answer, or is not ready.
    """
    state = remote.status(control_of(options), options.timeout)
    try:
        condition, serving = state["state"], state["tally"]["idle"] + state["tally"]["busy"]
    except (KeyError, TypeError):
        raise SetupError(f"not the state of a linepool server: {str(state)[:80]}") from None
    if not options.live:
        if condition != "ready":
            raise SetupError(f"not ready: the server is {condition}")
        if not serving:
            raise SetupError("not ready: no worker is up")
    return {"state": condition, "workers": serving}
