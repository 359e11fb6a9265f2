"""The commands ``deny`` and ``allow``: refuse the clients of a network for a while, and serve them again."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from linepool.operate import remote
from linepool.operate.chosen_server import add_control, control_of
from linepool.settings.networks import parsed_networks

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 1e9  # seconds


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add these commands to the command line."""
    deny = commands.add_parser(
        "deny",
        epilog="examples:\n  linepool deny 192.0.2.7 --for 10m\n  linepool deny 2001:db8::/32",
    )
    deny.description = (
        "Refuse new clients of a network, on all listeners, until 'linepool allow' or the end of the time"
        " given; connections that are open are closed as soon as they send something. A reload or an upgrade"
        " keeps that, a restart does not. Without a network: show those that are refused."
    )
    deny.add_argument(
        "network",
        metavar="NETWORK",
        nargs="?",
        type=_network,
        help="an address, a network such as 10.0.0.0/8, or unix",
    )
    deny.add_argument(
        "--for",
        metavar="TIME",
        dest="seconds",
        type=_seconds,
        default=0.0,
        help="for how long: 90s, 10m, 2h or 7d (default: no limit)",
    )
    deny.add_argument("--json", action="store_true", help="print those that are refused as JSON")
    deny.set_defaults(run=_deny)

    allow = commands.add_parser("allow", epilog="example:\n  linepool allow 192.0.2.7")
    allow.description = (
        "Serve the clients of a network again that 'linepool deny' has refused. The settings allow and deny"
        " stay as they are."
    )
    allow.add_argument("network", metavar="NETWORK", type=_network, help="as it was denied")
    allow.set_defaults(run=lambda options: _order(options, f"ALLOW {options.network}"))
    for parser in deny, allow:
        add_control(parser)
        parser.set_defaults(parser=parser)


def _network(text: str) -> str:
    try:
        (found,) = parsed_networks([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be one of {error}") from None
    return found


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text, re.ASCII)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 10m, 2h or 7d, not {text!r}")
    return seconds


def _deny(options: argparse.Namespace) -> int:
    if options.network:
        return _order(options, f"DENY {options.network} {options.seconds:g}")
    if options.seconds:
        options.parser.error("--for needs a network")
    bans = remote.status(control_of(options))["bans"]
    if options.json:
        print(json.dumps(bans))
        return 0
    for ban in bans:
        left = "" if ban["left_s"] is None else f" left_s={ban['left_s']:g}"
        print(f"{ban['network']}{left}")
    if not bans:
        print("no network is denied")
    return 0


def _order(options: argparse.Namespace, line: str) -> int:
    print(remote.order(control_of(options), line))
    return 0
