"""Running a server from the command line, as a user does, for the tests of examples and docs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from linepool.testing import Peer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
_TIMEOUT = 20.0  # seconds; only there to fail


class Running:
    """A server that runs and is ready."""

    def __init__(self, process: subprocess.Popen[str], control: str) -> None:
        self.process = process
        self.control = control
        self.log: list[str] = []
        for line in self._stream():
            self.log.append(line)
            if line.startswith("ready:"):
                break
        else:
            raise AssertionError("it did not start:\n" + "\n".join(self.log))
        # A pipe that nobody reads would stop the server once it is full.
        self._reader = threading.Thread(target=lambda: self.log.extend(self._stream()))
        self._reader.start()

    @property
    def address(self) -> str:
        """The first address that it listens on."""
        told = "listening on "
        return next(line.removeprefix(told) for line in self.log if line.startswith(told))

    def connect(self) -> Peer:
        """Return a new connection."""
        return Peer(self.address)

    def converse(self, script: bytes) -> bytes:
        """Send bytes on a connection of their own; return all that comes back."""
        with self.connect() as peer:
            peer.send(script)
            return peer.rest()

    def status(self) -> dict[str, Any]:
        """Return what STATUS says."""
        with Peer(f"unix:{self.control}") as peer:
            state: dict[str, Any] = json.loads(peer.ask("STATUS json"))
            return state

    def stop(self) -> int:
        """Stop it and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(_TIMEOUT)
        finally:
            self.process.kill()
            self._reader.join()
            assert self.process.stderr is not None
            self.process.stderr.close()
        return status

    def _stream(self) -> Iterator[str]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            yield line.rstrip("\n")


@contextlib.contextmanager
def run(*words: str | Path, directory: Path, **environment: str) -> Iterator[Running]:
    """Run ``python -m linepool run ...`` on a free port until the block ends; it must then exit 0.

    Args:
        words: The target and options.
        directory: The working directory; the control socket is made there too.
        environment: Variables to add.
    """
    control = str(directory / "control")
    command = [sys.executable, "-m", "linepool", "run", *map(str, words)]
    process = subprocess.Popen(
        [*command, "--bind", "127.0.0.1:0", "--control", control],
        cwd=directory,
        env={**plain_environment(), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Running(process, control)
    try:
        yield server
    finally:
        status = server.stop()
    assert status == 0, "\n".join(server.log)


def plain_environment() -> dict[str, str]:
    """Return the environment without settings, and with this Python's programs first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LINEPOOL_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}"}
