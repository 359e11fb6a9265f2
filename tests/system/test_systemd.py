"""A server under a real systemd, with the units that ``linepool unit`` prints."""

from __future__ import annotations

import re

import pytest

from linepool import cli
from linepool.operate import remote
from linepool.testing import Peer
from tests.servers import HANDLERS
from tests.system.systemd_world import SystemdWorld, why_not

reason = why_not()
pytestmark = pytest.mark.skipif(bool(reason), reason=f"no systemd as process 1: {reason}")

QUICK = "[Service]\nWatchdogSec=2\nRestartSec=0\nStandardError=append:/run/log\n"


@pytest.fixture
def units(monkeypatch, capsys):
    """Give the units of a server; the user is root, for whom alone this Python may be readable."""
    monkeypatch.chdir(HANDLERS)
    words = ["unit", "stuck_for_good.py", "--name", "sums", "--user", "root", "--workers", "2"]
    words += ["--bind", "unix:/run/socket", "--bind", "127.0.0.1:700"]
    words += ["--request-timeout", "0.1", "--kill-grace", "0.1"]
    found = {"sums.service.d/quick.conf": QUICK}
    for suffix, kind in (("service", "--socket"), ("socket", "--socket-unit")):
        assert cli.main([*words, kind]) == 0
        found[f"sums.{suffix}"] = capsys.readouterr().out
    return found


def test_a_server_lives_under_systemd(units, tmp_path):
    with SystemdWorld(tmp_path, units) as world:
        client, control = f"unix:{world.root}/run/socket", f"{world.root}/run/sums/control.sock"
        world.systemctl("start", "sums.socket")
        assert world.show("sums", "ActiveState") == {"ActiveState": "inactive"}
        with Peer(client) as peer:  # which starts it
            assert peer.ask("ADD 2 3") == "5"
        world.until("sums", "ActiveState", "active")
        world.until("sums", "StatusText", "2 workers, 0 busy, generation 1")
        listening = [one["address"] for one in remote.status(control)["listeners"]]
        assert listening == ["unix:/run/socket", "127.0.0.1:700"]

        with Peer(client) as peer:  # the hardening forbids nothing that this needs
            assert "the request was ended: it took longer than 0.1 s" in peer.ask("STUCK_IN_C")
        pid = world.show("sums", "MainPID")["MainPID"]
        status = (world.root / "proc" / pid / "status").read_text(encoding="ascii")
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)

        world.systemctl("kill", "--kill-who=main", "--signal=STOP", "sums")
        world.until("sums", "NRestarts", "1")  # the watchdog
        world.until("sums", "ActiveState", "active")
        world.systemctl("kill", "--kill-who=main", "--signal=KILL", "sums")
        world.until("sums", "NRestarts", "2")
        with Peer(client) as peer:  # systemd has kept the socket
            assert peer.ask("ADD 2 3") == "5"
        world.until("sums", "ActiveState", "active")

        world.systemctl("stop", "sums.socket", "sums.service")
        assert "stopping: waiting for in-flight requests" in world.log
        assert world.show("sums", "Result", "ActiveState") == {
            "Result": "success",
            "ActiveState": "inactive",
        }
