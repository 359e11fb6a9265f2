"""``linepool health``: what a probe is told, in each condition of a server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.servers import ENVIRONMENT, TIMEOUT, Gate


def health(control: str, *options: str) -> tuple[int, str]:
    """Return the exit status and the line of a health check."""
    done = subprocess.run(
        [sys.executable, "-m", "linepool", "health", *options],
        env={**ENVIRONMENT, "LINEPOOL_CONTROL": control},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).removesuffix("\n")


def test_a_saturated_server_is_ready_and_one_that_stops_is_live(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1")
    with server.connect() as taken, server.connect() as waiting:
        taken.send(b"HOLD on\n")
        gate.wait()
        waiting.send(b"ADD 1 2\n")
        server.until(lambda state: state["counters"]["saturated_s"])
        assert health(server.control) == (0, "ready: 1 worker")

        server.send(signal.SIGSTOP)
        assert health(server.control, "--live", "--timeout", "0.2") == (
            1,
            f"linepool: cannot reach a server at {server.control}: timed out",
        )
        server.send(signal.SIGCONT)

        server.send(signal.SIGTERM)
        server.wait_for("stopping: ")
        assert health(server.control) == (1, "linepool: not ready: the server is stopping")
        assert health(server.control, "--live")[0] == 0
        gate.open()
    assert server.ended() == 0
    assert health(server.control, "--live")[0] == 1


def test_a_server_is_not_ready_before_its_first_workers_and_without_workers(
    launch: Launch, tmp_path: Path
):
    boot, fifo = tmp_path / "boot", tmp_path / "boot.fifo"
    os.mkfifo(fifo)
    boot.write_text("wait")
    server = launch(
        "boots.py", "--workers", "1", "--spawn-timeout", "60", ready=False,
        environment={"BOOT": str(boot)},
    )  # fmt: skip
    server.wait_for("listening on ")
    assert health(server.control) == (1, "linepool: not ready: the server is starting")
    assert health(server.control, "--live") == (0, "starting: 0 workers")

    with fifo.open("r+b", buffering=0):
        server.wait_for("ready: ")
    assert health(server.control) == (0, "ready: 1 worker")

    os.kill(server.pids()[0], signal.SIGKILL)
    server.until(lambda state: state["tally"]["starting"] == 1)
    assert health(server.control) == (1, "linepool: not ready: no worker is up")
    assert health(server.control, "--live")[0] == 0


@pytest.mark.parametrize("reply", [b"{}\n", b'{"state": "ready", "tally": []}\n', b"[]\n", b"\n"])
def test_what_is_not_a_server_is_not_ready(tmp_path: Path, reply: bytes):
    path = str(tmp_path / "control")
    with socket.create_server(path, family=socket.AF_UNIX) as listener:

        def answer() -> None:
            with listener.accept()[0] as client:
                client.recv(100)
                client.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        status, line = health(path)
        thread.join()

    assert status == 1
    assert line.startswith("linepool: ")
    assert "\n" not in line


@pytest.mark.parametrize("options", [("--liv",), ("--timeout", "0"), ("--timeout", "soon"), ("x",)])
def test_a_wrong_use_is_told_from_a_bad_state(options):
    status, line = health("/none", *options)

    assert status == 2
    assert line.startswith("linepool health: ")
    assert "\n" not in line


def test_a_probe_loads_little():
    code = (
        "import sys; sys.argv = ['linepool', 'health', '--control', '/none'];"
        "from linepool.__main__ import main; print(main(), *sys.modules)"
    )
    status, *loaded = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    ).stdout.split()

    assert status == "1"
    heavy = {
        "linepool.app",
        "linepool.settings",
        "attrs",
        "logging",
        "difflib",
        "tomllib",
    }
    if sys.version_info < (3, 14):  # whose argparse needs it
        heavy.add("inspect")
    assert not heavy & set(loaded)
