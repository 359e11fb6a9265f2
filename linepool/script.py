"""The end of a script that serves its own handlers: ``linepool.run()``."""

from __future__ import annotations

from typing import Any, NoReturn

from linepool.app import App, default


def run(app: App | None = None, **settings: Any) -> NoReturn:
    """Serve an app (or the default one) until it is told to stop, then end the program.

    For the end of a script: ``python sums.py --workers 4`` takes the options of ``linepool run``.

    Args:
        app: The app; without one, that of ``linepool.handler``.
        settings: Any setting by name, below file, environment and command line.

    Raises:
        SystemExit: Always; with the exit status of ``linepool run``.
    """
    from linepool import cli  # noqa: PLC0415 - heavy; a worker or a test needs none of it

    raise SystemExit(cli.run_script(app or default, settings))
