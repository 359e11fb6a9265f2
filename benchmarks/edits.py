"""Measure how long after an edit the new code answers on an open connection, with linepool run --reload.

The app is one handler, and some modules of its own that it imports. Each edit changes its file in place.
"""

from __future__ import annotations

import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness

_PAUSE = 1.0  # seconds between two edits
_LIMIT = 30.0  # seconds for an edit
_APP = """\
import linepool
{imports}

@linepool.handler
def version() -> int:
    return {version}
"""


class _Client:
    """One connection, which must stay open."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _LIMIT)
        self._replies = self.socket.makefile("rb")

    def version(self) -> int:
        """Return which version of the code answers."""
        self.socket.sendall(b"VERSION\n")
        reply = self._replies.readline()
        if not reply.strip().isdigit():
            raise harness.BenchmarkError(f"a request got {reply!r}")
        return int(reply)


def _measure(edits: int, modules: int, directory: Path) -> list[float]:
    """Return for each edit the seconds until it is served."""
    for number in range(modules):
        (directory / f"module_{number}.py").write_text("def function():\n    return 1\n" * 100)
    imports = "\n".join(f"import module_{number}" for number in range(modules))
    app = directory / "app.py"
    app.write_text(_APP.format(imports=imports, version=0))
    port = harness.free_port()
    words = [sys.executable, "-m", "linepool", "run", "app.py", "--reload", "--control", "off"]
    program = harness.Program([*words, "--bind", f"127.0.0.1:{port}"], directory / "log", directory)
    try:
        harness.until("the server is ready", lambda: b"ready:" in program.log.read_bytes())
        client = _Client(port)
        times = []
        for version in range(1, edits + 1):
            time.sleep(_PAUSE)
            began = time.monotonic()
            app.write_text(_APP.format(imports=imports, version=version))
            harness.until("it is served", lambda want=version: client.version() == want, _LIMIT)
            times.append(time.monotonic() - began)
        return times
    finally:
        program.stop()


def _run() -> int:
    parser = harness.parser(__doc__)
    text = "default: %(default)s"
    parser.add_argument("--edits", type=harness.at_least_one, default=10, help=text)
    options = parser.parse_args()
    rows = []
    for modules in (0, 100):
        with tempfile.TemporaryDirectory() as name:
            times = _measure(options.edits, modules, Path(name))
        row = (statistics.median(times), min(times), max(times))
        rows.append((str(modules), *(f"{1000 * seconds:.0f}" for seconds in row)))
    print(f"{options.edits} edits; {harness.machine()}\n")
    print(harness.table(("imported modules", "median ms", "least ms", "most ms"), rows))
    return 0


if __name__ == "__main__":
    harness.main(_run)
