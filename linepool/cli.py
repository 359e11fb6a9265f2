"""The command line. Exit status: 0 done, 1 failed, 2 used wrongly."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from attrs import asdict

from linepool.app import App
from linepool.errors import SetupError
from linepool.operate import logs, remote, simulation, target
from linepool.operate.config import Configuration, MisuseError, configure, option_name
from linepool.operate.report import as_lines
from linepool.operate.serve import serve
from linepool.pool import simulate
from linepool.protocols.base import Limits
from linepool.settings import FIELDS, written
from linepool.version import __version__

FAILED = 1
MISUSED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    _fill_standard_descriptors()
    options = _parse(_parser(), sys.argv[1:] if arguments is None else arguments)
    try:
        status: int = options.run(options)
    except MisuseError as error:
        _complain(str(error))
        return MISUSED
    except SetupError as error:
        _complain(str(error))
        return FAILED
    except KeyboardInterrupt:  # while the target is loaded; a server takes the signal itself
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output is gone, as in: linepool status | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def run_script(app: App, settings: Mapping[str, Any]) -> int:
    """Serve an app from its own script, with the options of ``linepool run`` on its command line."""
    _fill_standard_descriptors()
    try:
        target.refuse_while_loading()
        app.settings = {**app.settings, **settings}
        if not app.name:
            app.name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
        parser = _Parser(prog=sys.argv[0], description="Serve this script's handlers.")
        _add_settings(parser)
        return _serve(app, _parse(parser, sys.argv[1:]))
    except MisuseError as error:
        _complain(str(error))
        return MISUSED
    except SetupError as error:
        if target.is_loading():
            raise
        _complain(str(error))
        return FAILED


def _fill_standard_descriptors() -> None:
    """Have 0, 1 and 2 open, if on nothing: else a socket could get the number that logs go to."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        """Print one line and exit."""
        self.exit(MISUSED, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; an option that does not exist is told with the nearest one that does."""
    options, surplus = parser.parse_known_args(arguments)
    if surplus:
        speaker: argparse.ArgumentParser = getattr(options, "parser", parser)
        known = [name for action in speaker._actions for name in action.option_strings]
        near = difflib.get_close_matches(surplus[0].partition("=")[0], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        speaker.error(f"unknown argument {surplus[0]}{hint}")
    return options


def _complain(message: str) -> None:
    print(f"linepool: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="linepool",
        description="Serve plain Python functions to telnet, netcat and every program that can"
        " write a line.",
        epilog="example:\n  linepool run sums.py --bind 127.0.0.1:7000 --workers 4",
    )
    parser.add_argument("--version", action="version", version=f"linepool {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    run = commands.add_parser(
        "run",
        help="serve a target",
        description="Serve the handlers of a Python file or module.",
        epilog="examples:\n  linepool run sums.py --bind 127.0.0.1:7000 --workers 4\n"
        "  linepool run shop.stock:app --bind unix:/run/stock.sock",
    )
    run.add_argument("target", metavar="TARGET", help="FILE.py or MODULE:APP")
    _add_settings(run)
    run.set_defaults(run=_run, parser=run)

    check = commands.add_parser(
        "check",
        help="show what would be served, and with which settings",
        description="Load a target and show what would be served, without serving it.",
        epilog="example:\n  linepool check sums.py",
    )
    check.add_argument("target", metavar="TARGET", help="FILE.py or MODULE:APP")
    check.add_argument("--json", action="store_true", help="for programs")
    _add_settings(check)
    check.set_defaults(run=_check, parser=check)

    status = commands.add_parser(
        "status",
        help="show the state of a running server",
        epilog="example:\n  linepool status --json",
    )
    status.add_argument("--json", action="store_true", help="for programs")
    _add_control(status)
    status.set_defaults(run=_status, parser=status)

    scale = commands.add_parser(
        "scale",
        help="change the size of a running server's pool",
        epilog="examples:\n  linepool scale 8\n  linepool scale +2\n  linepool scale 2:32",
    )
    scale.add_argument("size", metavar="SIZE", help="N, +N, -N or MIN:MAX")
    _add_control(scale)
    scale.set_defaults(run=lambda o: _order(o, f"SCALE {o.size}"))

    stop = commands.add_parser(
        "stop",
        help="stop a running server",
        description="Stop a running server when the requests in hand are done.",
        epilog="example:\n  linepool stop --now",
    )
    stop.add_argument("--now", action="store_true", help="do not wait for requests in hand")
    _add_control(stop)
    stop.set_defaults(run=lambda o: _order(o, "STOP now" if o.now else "STOP"))
    _add_simulate(
        commands.add_parser(
            "simulate",
            help="show how a pool would size itself under a load",
            description="Play a load to a pool that does not exist, and show how it would size itself"
            " and how long clients would wait.",
            epilog="examples:\n  linepool simulate load.csv --workers 2:32 --plot pool.png\n"
            "  linepool simulate --burst 64 --service 2 --workers 2:32\n"
            "  linepool simulate --poisson 200/s --service 0.02 --seconds 120",
        )
    )
    return parser


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    load = parser.add_argument_group("load").add_mutually_exclusive_group(required=True)
    load.add_argument(
        "trace", metavar="TRACE", nargs="?", help="file of lines at_s,service_s; -: standard input"
    )
    load.add_argument(
        "--poisson", metavar="RATE", type=_rate, help="clients at random, so many a second"
    )
    load.add_argument(
        "--burst", metavar="CLIENTS", type=_clients, help="so many clients in one moment"
    )
    for name, default, what in (
        ("service", 0.02, "how long a client keeps a worker; with --poisson on average"),
        ("seconds", 60.0, "how long clients come with --poisson"),
        ("boot", 0.01, "how long a worker takes until it is ready"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar="S",
            type=_positive,
            default=default,
            help=f"{what} (default: {default:g})",
        )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=1, help="for --poisson (default: 1)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw a picture, such as pool.png")
    parser.add_argument("--json", action="store_true", help="for programs")
    _add_settings(parser, simulation.SETTINGS)
    parser.set_defaults(run=_simulate)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1e6:
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
    return number


def _rate(text: str) -> float:
    return _positive(text.removesuffix("/s"))


def _clients(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def _add_settings(parser: argparse.ArgumentParser, names: Iterable[str] = FIELDS) -> None:
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
    group = parser.add_argument_group("settings")
    for name in names:
        field = FIELDS[name]
        unit = field.metadata["unit"]
        default = "1:max(4, 4 x CPUs)" if name == "workers" else written(name, field.default)
        text = f"{field.metadata['doc']} (default: {default})"
        group.add_argument(
            option_name(name),
            dest=f"setting_{name}",
            metavar=unit.upper().replace(" ", "-") or "NAME",
            action="append" if name == "bind" else "store",
            help=text.replace("%", "%%"),
        )


def _add_control(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--control", metavar="PATH", help="control socket of the server (default: of the only one)"
    )


def _configure(app: App, options: argparse.Namespace) -> Configuration:
    given = {
        name.removeprefix("setting_"): value
        for name, value in vars(options).items()
        if name.startswith("setting_") and value is not None
    }
    return configure(app, given, os.environ, options.config)


def _run(options: argparse.Namespace) -> int:
    return _serve(target.load(options.target), options)


def _serve(app: App, options: argparse.Namespace) -> int:
    configuration = _configure(app, options)
    logs.set_up(configuration.settings.log_level)
    return serve(app, configuration.settings)


def _check(options: argparse.Namespace) -> int:
    app = target.load(options.target)
    configuration = _configure(app, options)
    settings = configuration.settings
    service = app.freeze(Limits(settings.max_line_bytes, settings.max_body_bytes))
    if options.json:
        entries = [
            {"names": e.names, "usage": e.usage, "timeout": e.timeout, "place": e.place}
            for e in service.commands
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
    state = remote.status(remote.find(options.control))
    print(json.dumps(state) if options.json else "\n".join(as_lines(state)))
    return 0


def _order(options: argparse.Namespace, line: str) -> int:
    print(remote.order(remote.find(options.control), line))
    return 0


def _simulate(options: argparse.Namespace) -> int:
    settings = _configure(App(), options).settings
    if options.trace is not None:
        trace = simulation.load(options.trace)
    elif options.burst is not None:
        trace = simulate.burst(options.burst, options.service)
    else:
        trace = simulate.poisson(options.poisson, options.service, options.seconds, options.seed)
    result = simulate.simulate(trace, settings, options.boot)
    if options.plot is not None:
        simulation.plot(result, settings, options.plot)
    if options.json:
        print(json.dumps(simulation.as_json(result, settings)))
    else:
        print("\n".join(simulation.as_lines(result, settings)))
    return 0
