"""Profile a server under a load of ./dev bench speed: where its processor time goes.

    python -m benchmarks.profile pp64
    python -m benchmarks.profile redis --server redis

perf samples all processes of the server. The first table has the share of each process and library, the
second that of each function. Python functions appear as the interpreter's own.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from benchmarks import harness, load, meter
from benchmarks.speed import starting
from benchmarks.speed.cases import BY_NAME
from benchmarks.speed.measure import Job, generate
from benchmarks.speed.servers import OURS, Contender, all_contenders

_HERTZ = 1999  # samples per second and process; not a multiple of a timer's rate


def _record(job: Job, data: Path) -> None:
    pids = ",".join(map(str, meter.tree(job.pid)))
    command = ["perf", "record", "--quiet", "--event=cpu-clock", f"--freq={_HERTZ}"]
    command += ["--output", str(data), "--pid", pids]
    recorder = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        generate(job)
    finally:
        recorder.terminate()
        _, said = recorder.communicate()
    if not data.exists() or not data.stat().st_size:
        raise harness.BenchmarkError(f"perf recorded nothing: {said.strip()}")


def _report(data: Path, limit: int, columns: str) -> str:
    command = ["perf", "report", "--stdio", "--input", str(data), "--percent-limit=0.5"]
    command += [f"--sort={columns}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.rstrip(" -") for line in done.stdout.splitlines()]
    return "\n".join([line for line in lines if line and line[0] != "#"][:limit])


def _contender(name: str, case: str, cserver: Path) -> Contender:
    """Return a server of a case.

    Raises:
        harness.BenchmarkError: There is none of this name, or it is not installed.
    """
    found = [one for one in all_contenders(cserver, []) if case in one.cases]
    for one in found:
        if one.name == name:
            if missing := one.missing():
                raise harness.BenchmarkError(f"{name} needs {missing}")
            return one
    names = ", ".join(one.name for one in found)
    raise harness.BenchmarkError(f"{case} has no server {name!r}; its servers are {names}")


def _options() -> argparse.Namespace:
    parser = harness.parser(__doc__)
    parser.add_argument("case", choices=list(BY_NAME), metavar="CASE", help=", ".join(BY_NAME))
    parser.add_argument("--server", default=OURS, help="default: %(default)s")
    parser.add_argument("--seconds", type=harness.seconds, default=3.0, help="default: %(default)s")
    parser.add_argument(
        "--lines", type=harness.at_least_one, default=50, help="functions; default: %(default)s"
    )
    return parser.parse_args()


def _run() -> int:
    options = _options()
    if not harness.find("perf"):
        raise harness.BenchmarkError("perf is not installed (Debian: linux-perf)")
    with tempfile.TemporaryDirectory(prefix="linepool-bench-") as scratch:
        cserver, data = Path(scratch, "cserver"), Path(scratch, "perf.data")
        contender = _contender(options.server, options.case, cserver)
        load.build()
        starting.compile_cserver(cserver)
        with starting.serving(contender, BY_NAME[options.case], options.seconds) as job:
            _record(job, data)
        print(f"{contender.name}, {BY_NAME[options.case].title}; {contender.version()}\n")
        print(_report(data, options.lines, "pid,dso"))
        print("\n" + _report(data, options.lines, "dso,symbol"))
    return 0


if __name__ == "__main__":
    harness.main(_run)
