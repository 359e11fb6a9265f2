"""``linepool.run()``: the last line of a script that serves its own handlers."""

from __future__ import annotations

from typing import Any, NoReturn

from linepool.app import App, default


def run(app: App | None = None, **settings: Any) -> NoReturn:
    """Serve an app until the server is stopped, then exit.

    The last line of a script: ``python sums.py --workers 4`` takes the options of ``linepool run``.

    Args:
        app: The app; None: the default app, on which ``linepool.handler`` registers.
        settings: Any setting by name; file, environment and command line override it.

    Raises:
        SystemExit: Always, with the exit status of ``linepool run``.
    """
    from linepool import cli  # noqa: PLC0415 - heavy, and not needed by workers and tests

    raise SystemExit(cli.run_script(app or default, settings))
