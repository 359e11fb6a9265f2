"""The commands that talk to a running server through its control socket."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from linepool.digits import is_whole
from linepool.errors import SetupError
from linepool.operate import remote
from linepool.operate.chosen_server import add_control, control_of
from linepool.operate.outcome import add_json, as_json, interval
from linepool.operate.shown import stacks_as_lines, state_as_lines, stats_as_lines
from linepool.operate.terminal import printable

_LONGEST_BEFORE_DRAIN = 1e6  # seconds
_LONGEST_RELOAD = 3600.0  # seconds; the server has a limit of its own, load_timeout


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add these commands to the command line."""
    status = _add(commands, "status", "status --json", "status --watch 2")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument(
        "--watch",
        metavar="S",
        nargs="?",
        type=interval,
        const=1.0,
        help="show it again every S seconds (default: 1), until q or ctrl-C; where there is no terminal,"
        " one block each time, or with --json one object per line",
    )
    status.description = "Show the state of a running server."
    status.set_defaults(run=_status)

    scale = _add(
        commands,
        "scale",
        "scale 8",
        "scale +2",
        "scale 2:32",
    )
    scale.description = "Resize the pool of a running server."
    scale.add_argument("size", metavar="SIZE", help="N, +N, -N or MIN:MAX")
    add_json(scale)
    scale.set_defaults(run=lambda o: _order(o, f"SCALE {o.size}"))

    drain = _add(commands, "drain", "drain", "drain --after 8")
    drain.description = (
        "Have all workers finish their requests and leave. The listeners stay open: clients wait until"
        " the pool is filled again, by 'linepool scale' or 'linepool reload'."
    )
    drain.add_argument(
        "--after",
        metavar="S",
        type=_seconds,
        default=0.0,
        help="serve on for so many seconds, while probes and the agent-check say already that the server is"
        " draining",
    )
    add_json(drain)
    drain.set_defaults(run=lambda o: _order(o, f"DRAIN {o.after:g}" if o.after else "DRAIN"))

    reopen = _add(commands, "reopen", "reopen")
    reopen.description = (
        "Open the log file and the recording anew after they were renamed, as USR1 does."
    )
    add_json(reopen)
    reopen.set_defaults(run=lambda o: _order(o, "REOPEN"))

    reload = _add(commands, "reload", "reload")
    reload.description = (
        "Have a running server load its configuration and its code anew, and replace its workers. No"
        " connection ends. If the new code does not load or its workers do not start, the old ones stay,"
        " and the exit status is 1."
    )
    reload.add_argument("--json", action="store_true", help="print JSON")
    reload.set_defaults(run=_reload)

    upgrade = _add(commands, "upgrade", "upgrade")
    upgrade.description = (
        "Have a running server become the program that its command line starts now, such as another version"
        " of linepool or of Python, under the same pid; then load its code anew. No connection ends. If the"
        " new program cannot take over, the old one goes on, and the exit status is 1."
    )
    upgrade.add_argument("--json", action="store_true", help="print JSON")
    upgrade.set_defaults(run=_upgrade)

    kill = _add(commands, "kill", "kill 3")
    kill.description = (
        "Kill a worker at once. The log shows its stack, its client gets an error, its other connections"
        " and new requests go to other workers."
    )
    kill.add_argument("slot", metavar="SLOT", type=_slot, help="of the worker, as status shows it")
    add_json(kill)
    kill.set_defaults(run=lambda o: _order(o, f"KILL {o.slot}"))

    stop = _add(commands, "stop", "stop --now")
    stop.description = "Stop a running server after its in-flight requests are done."
    stop.add_argument("--now", action="store_true", help="do not wait for in-flight requests")
    add_json(stop)
    stop.set_defaults(run=lambda o: _order(o, "STOP now" if o.now else "STOP"))

    counted = _add(commands, "stats", "stats --json")
    counted.description = (
        "Show for each command how often it was served since the start of the server, how that ended and how"
        " long it took, those that took the most time first; then the slowest requests of the last minutes."
    )
    counted.add_argument("--json", action="store_true", help="print JSON")
    counted.set_defaults(run=_stats)

    shown = _add(commands, "stacks", "stacks --json")
    shown.description = (
        "Show what each worker is doing now, with the stack of its main thread, the most recent call"
        " first; below the workers, the requests that wait without one, and what for. Workers are neither"
        " stopped nor interrupted."
    )
    shown.add_argument("--json", action="store_true", help="print JSON")
    shown.add_argument(
        "--signal",
        action="store_true",
        help="send a signal to workers that do not answer because C code keeps the interpreter; it may end"
        " a system call that the code waits in",
    )
    shown.set_defaults(run=_stacks)


def _add(
    commands: argparse._SubParsersAction[Any], name: str, *examples: str
) -> argparse.ArgumentParser:
    shown = "".join(f"\n  linepool {example}" for example in examples)
    parser: argparse.ArgumentParser = commands.add_parser(
        name, epilog=f"example{'s' * (len(examples) > 1)}:{shown}"
    )
    add_control(parser)
    parser.set_defaults(parser=parser)
    return parser


def _slot(text: str) -> int:
    if is_whole(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"must be the number that status shows, not {text!r}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_BEFORE_DRAIN:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds up to {_LONGEST_BEFORE_DRAIN:.0f}, not {text!r}"
        )
    return seconds


@remote.understood()
def _status(options: argparse.Namespace) -> int:
    if options.watch:
        from linepool.operate.status_watch import watch  # noqa: PLC0415 - threads, termios

        return watch(lambda: control_of(options), options.watch, as_json=options.json)
    state = remote.status(control_of(options))
    if options.json:
        _show([json.dumps(state)])
    elif sys.stdout.isatty():
        from linepool.operate.shown_at_terminal import state_at_terminal  # noqa: PLC0415

        print("\n".join(state_at_terminal(state)))
    else:
        _show(state_as_lines(state))
    return 0


def _reload(options: argparse.Namespace) -> int:
    return _outcome(options, "RELOAD json")


def _upgrade(options: argparse.Namespace) -> int:
    return _outcome(options, "UPGRADE json")


def _outcome(options: argparse.Namespace, line: str) -> int:
    """Give an order that takes a while, and show how it has ended; return the exit status."""
    from linepool.master.outcome import Outcome  # noqa: PLC0415 - heavy: status needs none of it

    path = control_of(options)
    reply = remote.order(path, line, _LONGEST_RELOAD)
    facts = remote.parsed(path, reply, dict)
    version = facts.pop("version", "")
    try:
        outcome = Outcome(**facts)
    except TypeError:
        raise remote.not_ours(path, reply) from None
    if options.json:
        _show([reply])
    elif outcome.failure:
        raise SetupError(outcome.failure)
    else:
        _show([f"linepool {version}: {outcome}" if version else str(outcome)])
    return 1 if outcome.failure else 0


@remote.understood()
def _stats(options: argparse.Namespace) -> int:
    found = remote.stats(control_of(options))
    if options.json:
        _show([json.dumps(found)])
    elif sys.stdout.isatty():
        from linepool.operate.shown_at_terminal import stats_at_terminal  # noqa: PLC0415

        print("\n".join(stats_at_terminal(found)))
    else:
        _show(stats_as_lines(found))
    return 0


@remote.understood()
def _stacks(options: argparse.Namespace) -> int:
    how = "signal" if options.signal else "quiet"
    if options.json:
        _show([json.dumps(remote.stacks(control_of(options), how))])
        return 0
    rows, state = remote.stacks_and_state(control_of(options), how)
    if sys.stdout.isatty():
        from linepool.operate.shown_at_terminal import stacks_at_terminal  # noqa: PLC0415

        print("\n".join(stacks_at_terminal(rows, state)))
    else:
        _show(stacks_as_lines(rows, state.get("waiters")))  # an older server says nothing of them
    return 0


def _order(options: argparse.Namespace, line: str) -> int:
    if options.json:
        return as_json(lambda: {"reply": remote.order(control_of(options), line)})
    _show([remote.order(control_of(options), line)])
    return 0


def _show(lines: list[str]) -> None:
    print(printable(lines, sys.stdout))
