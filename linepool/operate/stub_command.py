"""The command ``linepool stub``: prints a typed module that calls an app's commands."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linepool.errors import LinepoolError, SetupError, UnknownCommand
from linepool.operate.options import add_settings, prepared
from linepool.operate.parser import EXIT_FAILURE
from linepool.operate.password import add_user, password_for
from linepool.operate.terminal import print_error
from linepool.stubs.names import is_name

_SETTINGS = ("chdir",)
_ADDRESS = re.compile(r"(.*:)?\d+|unix:.*|[a-z]+://.*")
_TIMEOUT_S = 30.0


class _UsageError(SetupError):
    is_usage = True


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    stub = commands.add_parser(
        "stub",
        description="Print a Python module with a class that has a method for each command of an app: typed,"
        " for threads and for asyncio. It needs linepool, but not the app's code.",
        epilog="examples:\n"
        "  linepool stub fraud.py > fraud_client.py\n"
        "  linepool stub fraud.service:app -o fraud_client.py\n"
        "  linepool stub fraud.service:app -o fraud_client.py --check  # in CI\n"
        "  linepool stub 127.0.0.1:7000  # of a server that runs",
    )
    stub.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="FILE.py, a package, MODULE, or one of these with :APP or :FUNCTION(); or the address of a"
        " server: HOST:PORT, PORT or unix:/PATH; none: what linepool.toml names as target",
    )
    stub.add_argument("-o", "--output", metavar="FILE", help="write it there (default: print it)")
    stub.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail if FILE is not what would be written",
    )
    stub.add_argument(
        "--name", metavar="CLASS", help="name of the class (default: from the name of the app)"
    )
    add_user(stub)
    add_settings(stub, _SETTINGS)
    stub.set_defaults(run=_run, parser=stub)


def _run(options: argparse.Namespace) -> int:
    if options.check and options.output is None:
        raise _UsageError("--check compares with a file: add -o FILE")
    name = options.name or ""
    if name and (not is_name(name) or name.startswith("_")):
        raise _UsageError(f"--name must be a name of a class, such as Fraud, not {name!r}")
    output = None if options.output is None else Path(options.output).absolute()
    outside = prepared(options)
    options.target = options.target or next(iter(outside.targets), "")
    if not options.target:
        raise _UsageError("give a TARGET, or write target = 'TARGET' in linepool.toml")
    if _ADDRESS.fullmatch(options.target):
        document = _served(options.target, options.user)
    else:
        document = _loaded(options.target)
    from linepool.stubs.module import module  # noqa: PLC0415 - it imports asyncio

    try:
        source = module(document, name)
    except (KeyError, TypeError, AttributeError):  # of a server that is not as it says
        raise SetupError(f"what SCHEMA returns at {options.target} is not understood") from None
    except ValueError as error:
        raise SetupError(str(error)) from None
    if output is None:
        sys.stdout.write(source)
        return 0
    if options.check:
        return _check(output, source, options)
    try:
        output.write_text(source, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot write {options.output}: {error.strerror}") from None
    return 0


def _check(output: Path, source: str, options: argparse.Namespace) -> int:
    """Compare a file with what it should be; return the exit status."""
    try:
        found = output.read_text(encoding="utf-8")
    except FileNotFoundError:
        found = None
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot read {options.output}: {error}") from None
    if found == source:
        return 0
    what = "does not exist" if found is None else "is not what the app's schema gives"
    named = f" --name {options.name}" if options.name else ""
    print_error(
        f"{options.output} {what}; make it anew:"
        f" linepool stub {options.target} -o {options.output}{named}"
    )
    return EXIT_FAILURE


def _loaded(name: str) -> Mapping[str, Any]:
    """Return the description of an app that is loaded here."""
    from linepool.operate import target  # noqa: PLC0415 - not needed for a server
    from linepool.protocols.jsonrpc import JsonRpc  # noqa: PLC0415
    from linepool.protocols.line import Line  # noqa: PLC0415

    service = target.load(name).freeze()
    protocol = service.protocol
    if isinstance(protocol, Line) and protocol.framed:
        return {**service.document, "protocol": "Line"}
    if isinstance(protocol, JsonRpc) and protocol.framing == "lines":
        return {**service.document, "protocol": "JsonRpc"}
    raise SetupError(
        f"a stub cannot call {type(protocol).__name__} as the app has it: it speaks Line with framed"
        " requests, and JsonRpc with framing='lines'"
    )


def _served(address: str, user: str | None) -> Mapping[str, Any]:
    """Return the description that a server sends."""
    from linepool.client.blocking import Client  # noqa: PLC0415 - not needed for a file

    try:
        password = password_for(user)
        with Client(address, timeout=_TIMEOUT_S, user=user, password=password) as client:
            document = client.call("SCHEMA")
    except ValueError as error:
        raise _UsageError(str(error)) from None
    except UnknownCommand:
        raise SetupError(
            f"the server at {address} has no command SCHEMA; make the stub from its app"
        ) from None
    except LinepoolError as error:
        raise SetupError(str(error)) from None
    if not isinstance(document, dict) or not {"app", "commands", "digest"} <= document.keys():
        raise SetupError(f"what SCHEMA returns at {address} does not describe an app")
    return document
