"""A server as in a container: process 1, in a cgroup with a memory limit."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.cgroups import JOIN, limited
from tests.conftest import Launch
from tests.process.test_first_process import NAMESPACE
from tests.servers import ENVIRONMENT, TIMEOUT, Gate, children_of

LIMIT = 256 * 1024 * 1024


@pytest.fixture(autouse=True)
def _needs_a_namespace() -> None:
    """Skip the test where process namespaces are not permitted."""
    try:
        subprocess.run([*NAMESPACE, "true"], capture_output=True, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"process namespaces are not permitted: {error}")


def test_process_1_knows_its_limits_answers_probes_and_drains_at_term(launch: Launch, gate: Gate):
    with limited("memory", "memory.limit_in_bytes", LIMIT) as group:
        server = launch(
            "workshop.py", "--workers", "1:900", wrapper=(*JOIN, str(group), *NAMESPACE)
        )
        (master,) = children_of(server.process.pid)
        state = server.status()
        assert state["pid"] == 1
        assert state["limits"]["memory_bytes"] == LIMIT
        line = server.wait_for("memory limit too low for all workers: limit_mb=256 ")
        assert "workers=900" in line

        probe = [sys.executable, "-m", "linepool", "health", "--control", server.control]
        inside = ["nsenter", "--target", str(master), "--pid", "--mount", *probe]
        checked = subprocess.run(
            inside, capture_output=True, text=True, env=ENVIRONMENT, timeout=TIMEOUT, check=True
        )
        assert checked.stdout.startswith("ready: ")

        with server.connect() as peer:
            peer.send(b"HOLD on\n")
            gate.wait()
            subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(master)], check=True)
            server.wait_for("stopping: waiting for in-flight requests")
            gate.open()
            assert peer.line() == "on"
        assert server.ended() == 0
