"""``linepool unit``: print the systemd units of a server."""

from __future__ import annotations

import argparse
import os
import re
import stat
import sys
from typing import Any

from attrs import evolve

from linepool.address import parse_address
from linepool.app import App
from linepool.errors import SetupError
from linepool.kernel.rlimit import limit_wanted
from linepool.operate.config import COMMAND_LINE, Configuration, Given, option_name
from linepool.operate.options import add_settings, given_settings
from linepool.operate.target import parts_of
from linepool.operate.terminal import printable
from linepool.operate.unit_files import TEMPORARY, Service, in_any, service_unit, socket_unit
from linepool.settings import FIELDS, IN_FOREGROUND, Settings, exact_text

_DESCRIPTION = (
    "Print a hardened systemd service for a server, with absolute paths. The options of 'linepool run' go"
    " into its command; the target is not loaded. With --socket, the service has its sockets from a socket"
    " unit, which --socket-unit prints."
)
_EXAMPLES = (
    "examples:\n"
    "  linepool unit sums.py --user sums --bind 0.0.0.0:7000 > /etc/systemd/system/sums.service\n"
    "  linepool unit sums.py --socket --bind 0.0.0.0:7000 > /etc/systemd/system/sums.service\n"
    "  linepool unit sums.py --socket-unit --bind 0.0.0.0:7000 > /etc/systemd/system/sums.socket"
)
# The unit says these itself.
_OF_THE_UNIT = ("user", "group", "no_new_privileges", "umask", "chdir", "pid_file")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.-]*")  # without @, which makes a template
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class _NoTargetError(SetupError):
    is_usage = True


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    unit = commands.add_parser("unit", description=_DESCRIPTION, epilog=_EXAMPLES)
    unit.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="FILE.py, a package, MODULE or MODULE:APP; none: what linepool.toml names as target",
    )
    unit.add_argument("--name", metavar="NAME", help="name of the units (default: from the target)")
    unit.add_argument(
        "--user", metavar="NAME", help="user that runs it (default: one that systemd makes up)"
    )
    unit.add_argument("--group", metavar="NAME", help="group (default: that of the user)")
    kind = unit.add_mutually_exclusive_group()
    kind.add_argument("--socket", action="store_true", help="systemd opens its sockets")
    kind.add_argument("--socket-unit", action="store_true", help="print the socket unit")
    add_settings(unit, [name for name in FIELDS if name not in _OF_THE_UNIT])
    unit.set_defaults(run=_unit, parser=unit)


def _unit(options: argparse.Namespace) -> int:
    service = _service(options)
    socket = socket_unit(service) if service.has_socket else ""
    print(socket if options.socket_unit else service_unit(service), end="")
    paths = [service.directory, *service.reads]
    if not service.user and (closed := next(filter(None, map(_closed, paths)), "")):
        warning = f"a user that systemd makes up cannot enter {closed}: give --user NAME"
        print(printable([f"linepool: {warning}"], sys.stderr), file=sys.stderr)
    return 0


def _service(options: argparse.Namespace) -> Service:
    """Return what the units are made from.

    Raises:
        SetupError: The target does not exist, or a unit cannot have what is given.
    """
    directory = _directory()
    # The service has other variables than this process.
    outside = Given.read(given_settings(options), {}, options.config)
    named = options.target or next(iter(outside.targets), "").partition("@")[0]
    if not named:
        raise _NoTargetError("give a TARGET, or write target = 'TARGET' in linepool.toml")
    target, stem = _target(named, directory)
    name = options.name or stem
    if not _NAME.fullmatch(name):
        raise SetupError(f"a unit cannot have the name {name!r}: give --name NAME")
    configuration = outside.configuration(App())
    if configuration.settings.workers == IN_FOREGROUND:
        raise SetupError("a service has workers: workers = 0 is for a debugger")
    settings = _absolute(configuration.settings, directory)
    has_socket = options.socket or options.socket_unit
    control = settings.control if settings.control != "auto" else f"/run/{name}/control.sock"
    program = _program()
    words = _options(configuration, settings, f"systemd:{name}" if has_socket else "")
    reads = [program[0], sys.prefix, sys.base_prefix, *([target] if os.path.isabs(target) else [])]
    if options.config:
        reads.append(os.path.join(directory, options.config))
        words += ["--config", reads[-1]]
    for file in options.env_file:
        reads.append(os.path.join(directory, file))
        words += ["--env-file", reads[-1]]
    own = (f"/run/{name}/", f"/var/lib/{name}/")
    return Service(
        name=name,
        command=[
            *program,
            "run",
            *([target] if options.target else []),
            *words,
            "--control",
            control,
        ],
        reload=[*program, "reload", "--control", control] if control != "off" else [],
        directory=directory,
        user=_account(options.user or settings.user),
        group=_account(options.group or settings.group),
        settings=settings,
        open_files=limit_wanted(settings),
        reads=reads,
        writes=_places(settings, directory, own, has_socket=has_socket),
        has_socket=has_socket,
    )


def _directory() -> str:
    """Return the working directory by the name that it was entered by.

    It may be a symbolic link to the current release, which is another one at the next start.
    """
    try:
        here, name = os.getcwd(), os.environ.get("PWD", "")
    except OSError as error:
        raise SetupError(f"the working directory cannot be used: {error.strerror}") from None
    is_here = os.path.isabs(name) and os.path.exists(name) and os.path.samefile(name, here)
    return name if is_here else here


def _target(target: str, directory: str) -> tuple[str, str]:
    """Return a target with an absolute path, and a name for what it serves.

    Raises:
        SetupError: The file does not exist.
    """
    where, app = parts_of(target)
    suffix = f":{app}" if app else ""
    if where.endswith(".py") and not os.path.isfile(where):
        raise SetupError(f"file {where} does not exist")
    if os.path.exists(where):
        path = os.path.normpath(os.path.join(directory, where))
        stem = os.path.basename(path).removesuffix(".py")
        return path + suffix, stem
    if not all(part.isidentifier() for part in where.split(".")):
        raise SetupError(f"{where!r} is neither a file nor the name of a module")
    return where + suffix, where.rpartition(".")[2]


def _program() -> list[str]:
    """Return the command ``linepool`` of this Python, with absolute paths."""
    script = os.path.join(os.path.dirname(sys.executable), "linepool")
    if os.access(script, os.X_OK):
        return [script]
    return [sys.executable, "-P", "-m", "linepool"]


def _absolute(settings: Settings, directory: str) -> Settings:
    """Return settings with absolute paths of unix sockets."""
    bind = []
    for text in settings.bind:
        path = parse_address(text).path
        is_relative = path and path[0] not in "/@"
        bind.append(f"unix:{os.path.join(directory, path)}" if is_relative else text)
    return evolve(settings, bind=tuple(bind))


def _options(configuration: Configuration, settings: Settings, socket: str) -> list[str]:
    """Return the settings of the command line as options; ``socket``: what is in the place of ``bind``."""
    words = []
    for name, source in configuration.sources.items():
        if source == COMMAND_LINE and name not in ("bind", "control"):
            words += [option_name(name), exact_text(name, getattr(settings, name))]
    own = settings.bind if configuration.sources.get("bind") == COMMAND_LINE else ()
    for address in [socket] if socket else own:
        words += [option_name("bind"), address]
    return words


_ONLY_READ = ("chdir", "tls_cert", "tls_key", "tls_ca")


def _places(
    settings: Settings, directory: str, own: tuple[str, ...], *, has_socket: bool
) -> list[str]:
    """Return the directories of the files that the settings name, except those below its own."""
    paths = [] if has_socket else [parse_address(text).path for text in settings.bind]
    paths += [
        str(getattr(settings, name))
        for name, field in FIELDS.items()
        if field.metadata["unit"] == "path" and name not in _ONLY_READ
    ]
    files = [path for path in paths if path not in ("", "auto", "off") and path[0] != "@"]
    found = {os.path.dirname(os.path.join(directory, path)) for path in files}
    return sorted(place for place in found if not f"{place}/".startswith(own))


def _closed(path: str) -> str:
    """Return the first directory on the way to a file that not every service can enter; "": there is none."""
    if in_any(TEMPORARY, [path]):
        return os.path.dirname(path)
    parts = path.split(os.sep)
    for number in range(2, len(parts) + 1):
        place = os.sep.join(parts[:number])
        if os.path.isdir(place) and not os.stat(place).st_mode & stat.S_IXOTH:
            return place
    return ""


def _account(name: str) -> str:
    """Return the name or number of a user or group.

    Raises:
        SetupError: It cannot be one.
    """
    if name and not _ACCOUNT.fullmatch(name):
        raise SetupError(f"{name!r} is not a user or group")
    return name
