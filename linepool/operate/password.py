"""Who a command of ``linepool`` logs in as at a server: ``--user``, and where its password is from."""

from __future__ import annotations

import argparse
import os
import sys

from linepool.errors import SetupError

_VARIABLE = "LINEPOOL_PASSWORD"


class _UsageError(SetupError):
    is_usage = True


def add_user(parser: argparse.ArgumentParser) -> None:
    """Add the option to a command line."""
    parser.add_argument(
        "--user",
        metavar="NAME",
        help=f"log in as this user; the password is in the variable {_VARIABLE}, or asked for",
    )


def password_for(user: str | None) -> str | None:
    """Return the password of a user, from the environment or the terminal; None: there is no user.

    Raises:
        SetupError: There is neither.
    """
    if user is None:
        return None
    if (password := os.environ.get(_VARIABLE)) is not None:
        return password
    if not sys.stdin.isatty():
        raise _UsageError(f"--user needs the password in the variable {_VARIABLE}, or a terminal")
    import getpass  # noqa: PLC0415 - few need it

    try:
        return getpass.getpass(f"password of {ascii(user)[1:-1]}: ")
    except EOFError:
        raise _UsageError("no password was given") from None
