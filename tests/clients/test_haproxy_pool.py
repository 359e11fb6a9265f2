"""Two servers behind HAProxy with agent-checks: each is taken out of service and comes back, under load."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from linepool.testing import Peer
from tests.certificates import Authority
from tests.conftest import Launch
from tests.haproxy import PROGRAM, Clients, Farm, Haproxy, free_port
from tests.servers import ROOT, ServerProcess


def test_a_server_is_drained_restarted_or_upgraded_and_comes_back_without_a_loss(
    launch: Launch, tmp_path: Path
):
    farm = Farm(launch, tmp_path)
    with farm.haproxy() as proxy, Clients(farm.port, short=3, kept=3) as clients:
        clients.until_more(50)
        farm.restart("one", proxy, clients)
        farm.upgrade("two", proxy, clients)
        clients.until_more(50)
    farm.check(clients)
    assert len(clients.unanswered) <= 6  # sent while the other side closed, and not run
    assert all(server.stop() == 0 for server in farm.servers.values())


def _kill_exporter(server: ServerProcess) -> None:
    pid = server.status()["processes"]["exporter"]
    os.kill(pid, signal.SIGKILL)
    server.until(lambda state: state["processes"]["exporter"] not in (None, pid))


def _until_weight_changes(proxy: Haproxy, name: str) -> None:
    weight = proxy.stats()[name]["weight"]
    proxy.until(name, lambda row: row["weight"] != weight)


def test_an_exporter_that_dies_changes_nothing_for_haproxy(launch: Launch, tmp_path: Path):
    farm = Farm(launch, tmp_path)
    with farm.haproxy() as proxy, Clients(farm.port, short=2, kept=2) as clients:
        before = {name: proxy.stats()[name]["chkdown"] for name in farm.servers}
        for server in farm.servers.values():
            _kill_exporter(server)
        for name in farm.servers:  # the new one has answered
            _until_weight_changes(proxy, name)
        clients.until_more(50)
        assert {name: proxy.stats()[name]["chkdown"] for name in farm.servers} == before
    farm.check(clients)
    assert not clients.unanswered


def test_kept_connections_find_a_server_that_is_back_when_they_are_old(
    launch: Launch, tmp_path: Path
):
    farm = Farm(launch, tmp_path, "--connection-max-age", "0.5")
    with farm.haproxy() as proxy, Clients(farm.port, short=0, kept=6) as clients:
        clients.until_more(50)
        farm.out_of_service("one", proxy, clients)
        assert farm.servers["one"].stop() == 0
        proxy.until("two", lambda row: int(row["scur"]) == 6)
        farm.start("one")
        proxy.until("one", lambda row: int(row["scur"]) >= 2)
    farm.check(clients)


@pytest.mark.parametrize(("page", "count"), [("scaling.md", 1), ("howto/haproxy.md", 2)])
def test_haproxy_takes_the_configurations_of_a_page(tmp_path: Path, page: str, count: int):
    text = (ROOT / "docs" / page).read_text()
    text = text.replace("/etc/haproxy/lines.pem", str(tmp_path / "lines.pem"))
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    blocks = [code for kind, code in fences if not kind and "listen " in code]
    assert len(blocks) == count
    # HAProxy reads the certificate too.
    Authority(tmp_path).certificate("lines", "DNS:localhost")
    assert PROGRAM
    for block in blocks:
        (tmp_path / "haproxy.cfg").write_text(block)
        done = subprocess.run(
            [PROGRAM, "-c", "-f", tmp_path / "haproxy.cfg"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "[WARNING]" not in done.stderr, done.stderr


_SHARDS = """
listen shards
    bind 127.0.0.1:{port}
    tcp-request inspect-delay 3s
    tcp-request content set-var(sess.k) req.payload(0,0),word(2,' ') if {{ req.len gt 4 }}
    tcp-request content accept if {{ req.len gt 4 }}
    balance hash var(sess.k)
    hash-type consistent sdbm avalanche
    server one 127.0.0.1:{one} check
    server two 127.0.0.1:{two} check
"""


def test_haproxy_shards_by_the_first_key_of_a_connection(launch: Launch, tmp_path: Path):
    ports = {}
    for name in "one", "two":
        environment = {"NAME": name, "JOURNAL": str(tmp_path / "journal")}
        ports[name] = launch("balanced.py", "--workers", "1", environment=environment).port
    port = free_port()
    with Haproxy(tmp_path, _SHARDS.format(port=port, **ports)) as proxy:
        proxy.until("one", lambda row: row["status"] == "UP")

        def server_of(*keys: str) -> list[str]:
            with Peer(f"127.0.0.1:{port}") as peer:
                return [peer.ask(f"NOTE {key}").partition(" ")[0] for key in keys]

        keys = [f"key{number}" for number in range(40)]
        found = {key: server_of(key) for key in keys}
        assert {key: server_of(key) for key in keys} == found
        assert sorted({name for (name,) in found.values()}) == ["one", "two"]
        # The first one decides for the whole connection.
        assert server_of(*keys) == found[keys[0]] * len(keys)
