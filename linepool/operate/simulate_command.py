"""The command ``linepool simulate``: its options. What they need is imported when it runs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from linepool.app import App
from linepool.digits import is_whole
from linepool.errors import SetupError
from linepool.operate.options import add_settings, configured
from linepool.pool.policy import SETTINGS
from linepool.settings import IN_FOREGROUND

_MAX_NUMBER = 1e6
_MAX_CLIENTS = 1_000_000


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "simulate",
        description="Simulate a load without starting a server: how the pool would scale, and how"
        " long clients would wait.",
        epilog="examples:\n  linepool simulate load.csv --workers 2:32 --plot pool.png\n"
        "  linepool simulate --burst 64 --service 2 --workers 2:32\n"
        "  linepool simulate --poisson 200/s --service 0.02 --seconds 120",
    )
    load = parser.add_argument_group("load").add_mutually_exclusive_group(required=True)
    load.add_argument(
        "trace",
        metavar="TRACE",
        nargs="?",
        help="file with lines at_s,service_s; -: standard input",
    )
    load.add_argument(
        "--poisson",
        metavar="RATE",
        type=_rate,
        help="random arrivals, this many per second on average",
    )
    load.add_argument(
        "--burst", metavar="CLIENTS", type=_clients, help="this many clients at the same moment"
    )
    for name, default, what in (
        ("service", 0.02, "how long a client occupies a worker; with --poisson, on average"),
        ("seconds", 60.0, "with --poisson: how long clients arrive"),
        ("boot", 0.01, "how long a worker takes to become ready"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar="S",
            type=_positive,
            default=default,
            help=f"{what} (default: {default:g})",
        )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=1, help="with --poisson: random seed (default: 1)"
    )
    parser.add_argument("--plot", metavar="FILE", help="write a chart to a file, such as pool.png")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_settings(parser, SETTINGS)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Not needed by the other commands, which would start later for it.
    from linepool.operate import simulation  # noqa: PLC0415
    from linepool.pool import simulate, traces  # noqa: PLC0415

    settings = configured(App(), options).settings
    if settings.workers == IN_FOREGROUND:
        raise SetupError("workers = 0 is for a debugger: there is no pool to simulate")
    if options.trace is not None:
        trace = simulation.load(options.trace)
    elif options.burst is not None:
        trace = traces.burst(options.burst, options.service)
    else:
        trace = traces.poisson(options.poisson, options.service, options.seconds, options.seed)
    result = simulate.simulate(trace, settings, options.boot)
    if options.plot is not None:
        simulation.plot(result, settings, options.plot)
    if options.json:
        print(json.dumps(simulation.as_json(result, settings)))
    else:
        print("\n".join(simulation.as_lines(result, settings)))
    return 0


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= _MAX_NUMBER:
        raise argparse.ArgumentTypeError(
            f"must be a positive number up to {_MAX_NUMBER:g}, not {text!r}"
        )
    return number


def _rate(text: str) -> float:
    return _positive(text.removesuffix("/s"))


def _clients(text: str) -> int:
    if not (is_whole(text) and 0 < int(text) <= _MAX_CLIENTS):
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {_MAX_CLIENTS}, not {text!r}"
        )
    return int(text)
