"""Start a server for a case."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness, meter
from benchmarks.harness import find
from benchmarks.speed.cases import Case
from benchmarks.speed.measure import Job
from benchmarks.speed.servers import Contender

_SETTLE_LIMIT = 3.0  # seconds
_LOG_BYTES = 1000  # of the end of a log, shown with a failure


@contextlib.contextmanager
def serving(contender: Contender, case: Case, seconds: float) -> Iterator[Job]:
    """Run a server in a directory of its own while the block runs; it is idle at first.

    Raises:
        harness.BenchmarkError: Something failed, in the block too; the text ends with the server's log.
    """
    with tempfile.TemporaryDirectory(
        prefix="linepool-bench-", ignore_cleanup_errors=True
    ) as directory:
        port = harness.free_port()
        log = Path(directory, "log")
        arguments = contender.arguments(port, case)
        program = harness.Program(arguments, log, Path(directory), contender.environment)
        try:
            harness.until(f"{contender.name} is up", lambda: _is_up(program, contender, port))
            meter.settle(program.pid, _SETTLE_LIMIT)
            yield Job(case, contender.exchange, port, program.pid, seconds)
        except (harness.BenchmarkError, OSError) as failure:
            said = log.read_text(errors="replace")[-_LOG_BYTES:]
            raise harness.BenchmarkError(f"{failure}; the server's log:\n{said}") from failure
        finally:
            program.stop()


def _is_up(program: harness.Program, contender: Contender, port: int) -> bool:
    is_ready = bool(program.said(contender.ready_text))  # raises if it has ended
    if contender.ready_text and not is_ready:
        return False
    try:
        if contender.before:
            contender.before.once(port)
        return bool(contender.exchange.once(port))
    except OSError:
        return False


def compile_cserver(program: Path) -> None:
    """Compile targets/cserver.c.

    Raises:
        harness.BenchmarkError: It does not compile.
    """
    command = [find("cc"), "-O2", "-o", str(program), str(harness.TARGETS / "cserver.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise harness.BenchmarkError(f"cserver.c does not compile:\n{done.stderr}")
