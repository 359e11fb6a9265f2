"""The command line. Exit status: 0 success, 1 failure, 2 usage or configuration error."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from attrs import asdict

from linepool.app import App
from linepool.core import about
from linepool.errors import SetupError
from linepool.operate import logs, remote, simulation, target
from linepool.operate.config import ConfigError, Configuration, option_name
from linepool.operate.environment import claim_sockets
from linepool.operate.options import add_control, add_settings, configured, control_of
from linepool.operate.report import as_lines
from linepool.operate.serve import serve
from linepool.operate.terminal import printable
from linepool.pool import simulate, traces
from linepool.protocols.base import Limits
from linepool.settings import FIELDS, written

log = logging.getLogger("linepool")

EXIT_FAILURE = 1
EXIT_USAGE = 2
_MAX_NUMBER = 1e6
_MAX_CLIENTS = 1_000_000
_NEARLY = 0.8  # similarity of an unknown option to a known one that makes it a mistake


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    _fill_standard_descriptors()
    options = _parse(_parser(), sys.argv[1:] if arguments is None else arguments)
    try:
        status: int = options.run(options)
    except ConfigError as error:
        _print_error(str(error))
        return EXIT_USAGE
    except SetupError as error:
        _print_error(str(error))
        return EXIT_FAILURE
    except KeyboardInterrupt:  # while the target is loaded; a running server handles it itself
        return 128 + signal.SIGINT
    except BrokenPipeError:  # stdout is closed, as in: linepool status | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    return status


def run_script(
    app: App | None, settings: Mapping[str, Any], arguments: Sequence[str] | None
) -> int:
    """Serve an app from its own script; for the arguments, see ``linepool.run``."""
    _fill_standard_descriptors()
    try:
        target.refuse_while_loading()
        if app is None:
            app = target.find(sys.modules["__main__"], sys.argv[0])
        app.settings = {**app.settings, **settings}
        if not app.name:
            app.name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
        parser = _Parser(prog=sys.argv[0], description="Serve the handlers of this script.")
        add_settings(parser)
        if arguments is not None:
            return _serve(app, _parse(parser, arguments), ())
        options, others = parser.parse_known_args(sys.argv[1:])
        return _serve(app, options, others)
    except ConfigError as error:
        _print_error(str(error))
        return EXIT_USAGE
    except SetupError as error:
        if target.is_loading():
            raise
        _print_error(str(error))
        return EXIT_FAILURE


def _fill_standard_descriptors() -> None:
    """Open /dev/null as 0, 1 or 2 where closed, so that no socket gets the descriptor of the log."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error on one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        """Print one line and exit."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; for an unknown one, exit with the nearest known option in the message."""
    options, surplus = parser.parse_known_args(arguments)
    if surplus:
        subparser: argparse.ArgumentParser = getattr(options, "parser", parser)
        known = [name for action in subparser._actions for name in action.option_strings]
        subparser.error(f"unknown argument {surplus[0]}{_hint(surplus[0], known)}")
    return options


def _hint(option: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    near = difflib.get_close_matches(option.partition("=")[0], known, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def _print_error(message: str) -> None:
    print(printable(f"linepool: {message}".split("\n"), sys.stderr), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="linepool",
        description="Serve plain Python functions to telnet, netcat and any program that can write"
        " a line.",
        epilog="example:\n  linepool run sums.py --bind 127.0.0.1:7000 --workers 4",
    )
    parser.add_argument("--version", action="version", version=about.replace("%", "%%"))
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    run = commands.add_parser(
        "run",
        help="serve an app",
        description="Serve the handlers of a Python file or module.",
        epilog="examples:\n  linepool run sums.py --bind 127.0.0.1:7000 --workers 4\n"
        "  linepool run shop.stock:app --bind unix:/run/stock.sock",
    )
    run.add_argument("target", metavar="TARGET", help="FILE.py, a package, MODULE or MODULE:APP")
    add_settings(run)
    run.set_defaults(run=_run, parser=run)

    check = commands.add_parser(
        "check",
        help="show an app's commands and the effective settings",
        description="Load an app and show its commands and settings, without serving it.",
        epilog="example:\n  linepool check sums.py",
    )
    check.add_argument("target", metavar="TARGET", help="FILE.py, a package, MODULE or MODULE:APP")
    check.add_argument("--json", action="store_true", help="print JSON")
    add_settings(check)
    check.set_defaults(run=_check, parser=check)

    status = commands.add_parser(
        "status",
        help="show the state of a running server",
        epilog="example:\n  linepool status --json",
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    add_control(status)
    status.set_defaults(run=_status, parser=status)

    scale = commands.add_parser(
        "scale",
        help="resize the pool of a running server",
        epilog="examples:\n  linepool scale 8\n  linepool scale +2\n  linepool scale 2:32",
    )
    scale.add_argument("size", metavar="SIZE", help="N, +N, -N or MIN:MAX")
    add_control(scale)
    scale.set_defaults(run=lambda o: _order(o, f"SCALE {o.size}"))

    stop = commands.add_parser(
        "stop",
        help="stop a running server",
        description="Stop a running server after its in-flight requests are done.",
        epilog="example:\n  linepool stop --now",
    )
    stop.add_argument("--now", action="store_true", help="do not wait for in-flight requests")
    add_control(stop)
    stop.set_defaults(run=lambda o: _order(o, "STOP now" if o.now else "STOP"))
    _add_simulate(
        commands.add_parser(
            "simulate",
            help="simulate how a pool scales under a load",
            description="Simulate a load without starting a server: how the pool would scale, and how"
            " long clients would wait.",
            epilog="examples:\n  linepool simulate load.csv --workers 2:32 --plot pool.png\n"
            "  linepool simulate --burst 64 --service 2 --workers 2:32\n"
            "  linepool simulate --poisson 200/s --service 0.02 --seconds 120",
        )
    )
    return parser


def _add_simulate(parser: argparse.ArgumentParser) -> None:
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
    add_settings(parser, simulation.SETTINGS)
    parser.set_defaults(run=_simulate)


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
    if not (text.isdecimal() and 0 < int(text) <= _MAX_CLIENTS):
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {_MAX_CLIENTS}, not {text!r}"
        )
    return int(text)


def _run(options: argparse.Namespace) -> int:
    return _serve(target.load(options.target), options)


def _serve(app: App, options: argparse.Namespace, others: Sequence[str] = ()) -> int:
    """Serve an app.

    Args:
        app: The app.
        options: The options of the command line.
        others: Arguments that are left to the script.
    """
    configuration = configured(app, options)
    logs.set_up(configuration.settings)
    claim_sockets(os.environ)
    for warning in _warnings(app, configuration):
        log.warning("%s", warning)
    for option in others:
        if hint := _hint(option, map(option_name, FIELDS), _NEARLY):
            log.warning("option %s is left to the script%s", option.partition("=")[0], hint)
    return serve(app, configuration.settings)


def _warnings(app: App, configuration: Configuration) -> list[str]:
    """Return what is worth a warning before an app is served."""
    warnings = [f"environment: {warning}" for warning in configuration.warnings]
    warnings += target.loaded_twice(app)
    if left_out := target.left_out(app):
        warnings.append(f"{left_out} is not served: it does not belong to the app {app.name!r}")
    return warnings


def _check(options: argparse.Namespace) -> int:
    app = target.load(options.target)
    configuration = configured(app, options)
    for warning in _warnings(app, configuration):
        _print_error(warning)
    settings = configuration.settings
    service = app.freeze(Limits(settings.max_line_bytes, settings.max_body_bytes))
    if options.json:
        entries = [
            {
                "names": entry.names,
                "usage": entry.usage,
                "timeout": entry.timeout,
                "place": entry.place,
            }
            for entry in service.commands
        ]
        shown = {
            name: written(name, value) for name, value in asdict(settings, recurse=False).items()
        }
        print(json.dumps({"name": app.name, "commands": entries, "settings": shown}))
        return 0
    print(f"{app.name}: {len(service.commands)} commands")
    for entry in service.commands:
        print(f"  {entry.usage:<40} {entry.place}".rstrip())
    print("settings")
    for name in FIELDS:
        source = configuration.sources.get(name)
        mark = f"  ({source})" if source else ""
        print(f"  {name:<20} {written(name, getattr(settings, name))}{mark}")
    return 0


def _status(options: argparse.Namespace) -> int:
    state = remote.status(control_of(options))
    print(printable([json.dumps(state)] if options.json else as_lines(state), sys.stdout))
    return 0


def _order(options: argparse.Namespace, line: str) -> int:
    print(printable([remote.order(control_of(options), line)], sys.stdout))
    return 0


def _simulate(options: argparse.Namespace) -> int:
    settings = configured(App(), options).settings
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
