"""What ``linepool call`` and ``linepool shell`` have in common: a client, and how values are printed."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from typing import Any

from linepool.client.blocking import Client
from linepool.errors import LinepoolError, SetupError
from linepool.operate.parser import EXIT_FAILURE
from linepool.operate.password import add_user, password_for
from linepool.operate.terminal import print_error, printable

_TIMEOUT_S = 30.0
_FILES = {
    "ca": "certificates of the CAs to trust, PEM; implies --tls (default: the system's)",
    "cert": "the client's certificate, PEM, with its key or without",
    "key": "the key of the client's certificate, PEM",
}


class UsageError(SetupError):
    """The command line is wrong."""

    is_usage = True


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the address of a server to a command line."""
    parser.add_argument(
        "address", metavar="ADDRESS", help="HOST:PORT, PORT, tls://HOST:PORT or unix:/PATH"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a client to a command line."""
    parser.add_argument("--json", action="store_true", help="print each value as JSON on one line")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=float,
        default=_TIMEOUT_S,
        help=f"how long to wait for each value, in seconds (default: {_TIMEOUT_S:g})",
    )
    add_user(parser)
    parser.add_argument("--tls", action="store_true", help="use TLS, as for an address tls://...")
    for name, holds in _FILES.items():
        parser.add_argument(f"--tls-{name}", metavar="PATH", help=holds)


def client_of(options: argparse.Namespace) -> Client:
    """Return the client of a command line; nothing is tried again.

    Raises:
        SetupError: The address or an option is wrong.
    """
    try:
        return Client(
            options.address,
            timeout=options.timeout,
            retries=False,
            tls=options.tls or None,
            tls_ca=options.tls_ca,
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            user=options.user,
            password=password_for(options.user),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def call_each(client: Client, *, as_json: bool) -> int:
    """Call each line of standard input; return the exit status."""
    status = 0
    for line in sys.stdin.buffer:
        if text := line.strip():
            status = call(client, text, as_json=as_json) or status
    return status


def call(client: Client, line: bytes, *, as_json: bool) -> int:
    """Call a line, print its values or its error, and return the exit status."""
    try:
        for value in client.stream_line(line):
            show(value, as_json=as_json)
    except (LinepoolError, ValueError) as error:
        print_error(str(error))
        return EXIT_FAILURE
    return 0


def show(value: Any, *, as_json: bool) -> None:
    """Print a value; bytes as they are, without a line ending."""
    if isinstance(value, bytes) and not as_json:
        _write(value)
        return
    text = _text(value, as_json=as_json)
    if sys.stdout.isatty():
        print(printable(text.split("\n"), sys.stdout), flush=True)
    else:
        _write(text.encode(errors="backslashreplace") + b"\n")


def _write(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _text(value: Any, *, as_json: bool) -> str:
    if not as_json and value is None:
        return "OK"
    if not as_json and isinstance(value, str):
        return value
    if isinstance(value, bytes):
        value = base64.b64encode(value).decode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
