"""Which running server a command is for: the option --control, and what counts without it.

Light: the health check imports it.
"""

from __future__ import annotations

import argparse
import os

from linepool.operate import remote

_VARIABLE = "LINEPOOL_CONTROL"
_FILES = ("linepool.toml", "pyproject.toml")


def add_control(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which running server is meant."""
    parser.add_argument(
        "--control",
        metavar="PATH",
        help="control socket of the server (default: that of the setting, else found automatically if"
        " one server is running)",
    )


def control_of(options: argparse.Namespace) -> str:
    """Return the path of the control socket of the server that is meant; ``add_control`` has added it.

    Raises:
        SetupError: It is not given, and not exactly one server runs.
    """
    return remote.find(options.control or _configured())


def _configured() -> str | None:
    """Return the path that environment or file give; None: they give none."""
    given = os.environ.get(_VARIABLE, "")
    if os.path.isabs(given):
        return given
    if not given and not any(map(_may_say, _FILES)):
        return None
    from linepool.operate.config import control_path  # noqa: PLC0415 - heavy: it knows all settings

    return control_path(os.environ)


def _may_say(file: str) -> bool:
    """Whether a file may have the setting: it has its name somewhere."""
    try:
        with open(file, "rb") as stream:
            return b"control" in stream.read()
    except FileNotFoundError:
        return False
    except OSError:  # the error is shown by what reads all settings
        return True
