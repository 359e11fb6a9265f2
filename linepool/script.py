"""``linepool.run()``: the last line of a script that serves its own handlers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, Unpack

from linepool.app import App
from linepool.settings.keywords import AppSettings


def run(
    *apps: App,
    arguments: Sequence[str] | None = None,
    **settings: Unpack[AppSettings],
) -> NoReturn:
    """Serve an app, or several by the same workers, until the server is stopped, then exit.

    The last line of a script: ``python sums.py --workers 4`` takes the options of ``linepool run``. Other
    options and arguments are left to the script. To be called in the main thread.

    Args:
        apps: The apps, each with addresses of its own (``App(bind=...)``, a table ``[[listener]]`` of the
            file); none: that of the script, which is the default app, on which ``linepool.handler``
            registers, or its only ``App``.
        arguments: Options of ``linepool run``, and nothing else; None: those in ``sys.argv``. A script
            with options of the same names gives ``arguments=[]``.
        settings: Any setting by name; file, environment and command line override it.

    Raises:
        SystemExit: Always, with the exit status of ``linepool run``.
    """
    from linepool.operate import run_command  # noqa: PLC0415 - heavy, and not needed by workers and tests

    raise SystemExit(run_command.run_script(apps, settings, arguments))
