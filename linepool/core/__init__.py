"""The compiled core: typed Cython for what every plain request goes through. It is optional.

Pure Python is complete and defines the behaviour; it serves where the core is not built, or where the
environment variable ``LINEPOOL_PURE`` is set. This module says which of the two runs. Runs in every process.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from linepool.kernel import features
from linepool.version import __version__

VARIABLE = "LINEPOOL_PURE"
"""Neither empty nor 0: pure Python runs, in this process and in those that it starts."""


def _why_pure() -> str:
    """Return why pure Python runs; empty if the compiled core does."""
    if os.environ.get(VARIABLE, "").strip() not in ("", "0"):
        return f"{VARIABLE} is set"
    if missing := features.why_accept_only():
        return f"this system has no {missing}"
    try:
        importlib.import_module("linepool.core.rounds")
    except ModuleNotFoundError:
        return "the compiled core is not built"
    except ImportError as error:  # built for another Python or C library
        return f"the compiled core cannot be loaded: {error}"
    return ""


def prepare(protocol: type) -> None:
    """Import what the core needs for a protocol, before workers are forked that would do so each."""
    if compiled:
        from linepool.core import turn  # noqa: PLC0415 - it may not be there

        turn.syntax_module(protocol)


why_pure = _why_pure()
"""Why pure Python runs; empty if the compiled core does."""

compiled = not why_pure
"""Whether the compiled core runs."""

described = "compiled core" if compiled else f"pure Python ({why_pure})"
"""Which implementation runs, for people."""

_python = {"cpython": "CPython", "pypy": "PyPy"}.get(
    sys.implementation.name, sys.implementation.name
)
about = f"linepool {__version__}, {described}, {_python} {sys.version.split()[0]}"
"""What runs: the version, the implementation and the Python, for people."""

if TYPE_CHECKING or not compiled:
    from linepool.core import plain as fields
else:
    from linepool.core import fields

ConnectionFields = fields.ConnectionFields
FigureFields = fields.FigureFields
InterruptFields = fields.InterruptFields
SafePointFields = fields.SafePointFields
TableFields = fields.TableFields
