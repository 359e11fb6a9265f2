"""Servers whose workers boot as the test says."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import Launch
from tests.servers import ServerProcess


def launch_booting(
    launch: Launch, directory: Path, *options: str, how: str, ready: bool = False
) -> ServerProcess:
    """Start a server whose workers boot as the file ``boot`` in a directory says.

    Args:
        launch: The fixture.
        directory: The test's directory.
        options: Options of ``linepool run``.
        how: The content of the file; see ``handlers/boots.py``. Workers that wait, wait until the
            test opens ``boot.fifo`` for writing.
        ready: Whether to wait until the server is ready; otherwise only until it is started.
    """
    boot = directory / "boot"
    boot.write_text(how)
    os.mkfifo(f"{boot}.fifo")
    return launch("boots.py", *options, ready=ready, environment={"BOOT": str(boot)})
