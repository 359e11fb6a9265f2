"""A server under a real systemd, with the units that ``linepool unit`` prints."""

from __future__ import annotations

import re

import pytest

from linepool import cli
from linepool.operate import remote
from linepool.testing import Peer
from tests.system.systemd_world import SystemdWorld, why_not

reason = why_not()
pytestmark = pytest.mark.skipif(bool(reason), reason=f"no systemd as process 1: {reason}")

QUICK = "[Service]\nWatchdogSec=6\nRestartSec=0\nStandardError=append:/run/log\n"
APP = """
import collections, itertools, linepool

@linepool.handler
def version() -> str:
    return "one"

@linepool.handler
def stuck() -> None:
    collections.deque(itertools.repeat(0), maxlen=0)
"""


@pytest.fixture
def units(tmp_path, monkeypatch, capsys):
    """Give the units of an app in /run/app; the user is root, for whom alone this Python may be readable."""
    (tmp_path / "app.py").touch()
    monkeypatch.chdir(tmp_path)
    words = ["unit", "app.py", "--name", "sums", "--user", "root", "--workers", "2"]
    words += ["--bind", "unix:/run/socket", "--bind", "127.0.0.1:700"]
    words += ["--request-timeout", "0.1", "--kill-grace", "0.1"]
    found = {"sums.service.d/quick.conf": QUICK}
    for suffix, kind in (("service", "--socket"), ("socket", "--socket-unit")):
        assert cli.main([*words, kind]) == 0
        found[f"sums.{suffix}"] = capsys.readouterr().out.replace(str(tmp_path), "/run/app")
    return found


def test_a_server_lives_under_systemd(units, tmp_path):
    with SystemdWorld(tmp_path, units) as world:
        client, control = f"unix:{world.root}/run/socket", f"{world.root}/run/sums/control.sock"
        app = world.root / "run" / "app" / "app.py"
        app.parent.mkdir()
        app.write_text(APP)
        world.systemctl("start", "sums.socket")
        assert world.show("sums", "ActiveState") == {"ActiveState": "inactive"}
        with Peer(client) as peer:  # which starts it
            assert peer.ask("VERSION") == "one"
        world.until_active("sums")
        world.until("sums", "StatusText", lambda text: text == "2 workers, 0 busy, generation 1")
        listening = [one["address"] for one in remote.status(control)["listeners"]]
        assert listening == ["unix:/run/socket", "127.0.0.1:700"]

        with Peer(client) as peer:  # the hardening forbids nothing that this needs
            assert "the request was ended: it took longer than 0.1 s" in peer.ask("STUCK")
        pid = world.show("sums", "MainPID")["MainPID"]
        status = (world.root / "proc" / pid / "status").read_text(encoding="ascii")
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)

        with Peer(client) as peer:  # systemctl waits for the end of a reload, and knows how it ends
            app.write_text(APP.replace('"one"', '"second"').replace("return", "retrun"))
            world.systemctl("reload", "sums", status=1)
            assert "the last reload failed: " in world.show("sums", "StatusText")["StatusText"]
            assert peer.ask("VERSION") == "one"
            app.write_text(APP.replace('"one"', '"three"'))
            world.systemctl("reload", "sums")
            assert peer.ask("VERSION") == "three"
            assert world.show("sums", "ActiveState") == {"ActiveState": "active"}

        world.systemctl("kill", "--kill-who=main", "--signal=STOP", "sums")
        world.until_active("sums", restarts=1)  # the watchdog
        with Peer(client) as peer:  # systemd has kept the socket
            assert peer.ask("VERSION") == "three"

        world.systemctl("stop", "sums.socket", "sums.service")
        assert "stopping: waiting for in-flight requests" in world.log
        assert world.show("sums", "Result", "ActiveState") == {
            "Result": "success",
            "ActiveState": "inactive",
        }
