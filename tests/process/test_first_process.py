"""A server that is process 1 of a container: it reaps what others leave behind."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.servers import TIMEOUT

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@pytest.fixture(autouse=True)
def _needs_a_namespace() -> None:
    """Skip the test where process namespaces are not permitted."""
    try:
        subprocess.run([*NAMESPACE, "true"], capture_output=True, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"process namespaces are not permitted: {error}")


def test_process_1_reaps_orphans_and_leaves_others_their_children(launch: Launch, tmp_path: Path):
    os.mkfifo(tmp_path / "go")
    server = launch("orphans.py", "--workers", "1", wrapper=NAMESPACE)
    orphans = server.ask("LEAVE_ORPHANS 20")
    assert len(orphans.split()) == 20
    server.until(lambda _: server.ask(f"REMAINING {orphans}") == "0")

    (tmp_path / "go").write_text("\n")
    assert _content(tmp_path / "status") == "7"

    assert server.ask("DIE") == ""
    server.until(lambda state: state["counters"]["crashes"] == 1 and state["tally"]["idle"])
    assert "signal=SIGABRT" in server.wait_for("worker died")
    server.order("STOP")
    assert server.ended() == 0


def _content(path: Path) -> str:
    """Return what a file contains, once it contains something."""
    give_up_at = time.monotonic() + TIMEOUT
    while not (path.exists() and (text := path.read_text())):
        assert time.monotonic() < give_up_at
    return text
