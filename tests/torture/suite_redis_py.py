"""redis-py's own tests, on a server that runs already."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import xml.etree.ElementTree as Xml
from pathlib import Path

from tests.torture.suite_results import Outcome

SUITES = (
    *(f"tests/test_{name}.py" for name in ("commands", "lock", "scripting", "pubsub", "pipeline")),
    *(f"tests/test_{name}.py" for name in ("connection_pool", "encoding", "monitor", "client")),
    *(f"tests/test_asyncio/test_{name}.py" for name in ("commands", "lock", "scripting")),
    *(f"tests/test_asyncio/test_{name}.py" for name in ("pubsub", "pipeline", "connection_pool")),
)
_MARKS = "not redismod and not onlycluster and not ssl and not replica and not experimental"
_HANGS_S = 15
_LIMIT_S = 900


def run_suite(python: str, source: Path, suite: str, port: int) -> dict[str, Outcome]:
    """Run one file of tests."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [python, "-m", "pytest", suite, "-q", "-m", _MARKS, f"--junitxml={report}"]
        command += [
            "-p",
            "no:cacheprovider",
            "--tb=line",
            f"--timeout={_HANGS_S}",
            f"--redis-url=redis://127.0.0.1:{port}/0",
        ]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command,
                cwd=source,
                env={**os.environ, "PYTHONPATH": str(source)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_LIMIT_S,
                check=False,
            )
        return parse(report.read_text()) if report.exists() else {}


def parse(report: str) -> dict[str, Outcome]:
    """Return the outcome of each test."""
    outcomes = {}
    for case in Xml.fromstring(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        outcomes[name] = _outcome(case)
    return outcomes


def _outcome(case: Xml.Element) -> Outcome:
    for kind in ("failure", "error"):
        for found in case.iter(kind):
            text = f"{found.get('message', '')}\n{found.text or ''}"
            return Outcome("failed", text)
    for found in case.iter("skipped"):
        return Outcome("ignored", found.get("message", ""))
    return Outcome("passed")
