"""Two servers behind HAProxy: taken out of service again and again under load; and how it balances.

``--reloads`` is how often one of them is restarted and the other upgraded. How the ways of balancing compare
is printed, for docs/scaling.md.
"""

from __future__ import annotations

import os
import queue
import random
import statistics
import threading
import time
from pathlib import Path

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.haproxy import Clients, Farm, Haproxy, free_port
from tests.servers import TIMEOUT

_WAYS = {
    "roundrobin": ("roundrobin", ""),
    "leastconn": ("leastconn", ""),
    "leastconn, agent-check": ("leastconn", "agent"),
    "roundrobin, agent-check": ("roundrobin", "agent"),
}
_RATES = (70, 95)  # requests a second; both servers together can do 120
_SECONDS = 25.0  # for each way and rate
_QUIET_S = 5.0
_MEANS = {"fast": "0.1", "slow": "0.2"}  # seconds, exponentially distributed


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_no_request_is_lost_in_many_rounds_behind_haproxy(
    launch: Launch, tmp_path: Path, scheme: str, reloads: int
) -> None:
    farm = Farm(launch, tmp_path)
    kept = 0 if scheme == "accept" else 4  # there, each would keep a worker
    with farm.haproxy() as proxy, Clients(farm.port, short=4, kept=kept) as clients:
        for _ in range(reloads):
            farm.restart("one", proxy, clients)
            farm.upgrade("two", proxy, clients)
    print(
        f"\n{scheme or 'shared'}: {len(clients.answered)} requests answered, {len(clients.failed)} failed,"
        f" {len(clients.unanswered)} were sent on connections that were just ending, in {2 * reloads} rounds"
    )
    farm.check(clients)


def test_how_haproxy_balances_servers_of_which_one_is_half_as_fast(
    launch: Launch, tmp_path: Path
) -> None:
    ports: dict[str, tuple[int, int]] = {}
    for name, mean in _MEANS.items():
        agent = free_port()
        server = launch(
            "balanced.py",
            *("--workers", "8", "--agent", f"127.0.0.1:{agent}"),
            environment={"NAME": name, "MEAN_S": mean, "JOURNAL": str(tmp_path / "journal")},
        )
        ports[name] = (server.port, agent)
    ways = {way: free_port() for way in _WAYS}
    with Haproxy(tmp_path, "".join(_listen(way, ways[way], ports) for way in _WAYS)) as proxy:
        for name in _MEANS:
            proxy.until(name, lambda row: row["status"] in ("UP", "no check"))
        for rate in _RATES:
            for way, port in ways.items():
                took, fast = _load(port, rate)
                p99 = statistics.quantiles(took, n=100)[98]
                print(
                    f"\n{rate}/s {way}: p50 {1000 * statistics.median(took):.0f} ms,"
                    f" p99 {1000 * p99:.0f} ms, {fast / len(took):.2f} by the fast one",
                    end="",
                )


def _listen(way: str, port: int, ports: dict[str, tuple[int, int]]) -> str:
    balance, checked = _WAYS[way]
    text = f"\nlisten way{port}\n    bind 127.0.0.1:{port}\n    balance {balance}\n"
    for name, (served, agent) in ports.items():
        check = f" agent-check agent-port {agent} agent-inter 500" if checked else ""
        text += f"    server {name} 127.0.0.1:{served} weight 100{check}\n"
    return text


def _load(port: int, rate: float) -> tuple[list[float], int]:
    """Send requests at random moments, each on a connection of its own.

    Returns how long each has taken since the moment at which it was to be sent, and how many the fast
    server has answered.
    """
    luck = random.Random(rate)
    due: queue.Queue[float | None] = queue.Queue()
    took: list[float] = []
    names: list[str] = []

    def work() -> None:
        while (at := due.get()) is not None:
            with Peer(f"127.0.0.1:{port}") as peer:
                names.append(peer.ask("NOTE 1").partition(" ")[0])
            took.append(time.monotonic() - at)

    clients = [threading.Thread(target=work) for _ in range(400)]
    for client in clients:
        client.start()
    at = time.monotonic()
    end = at + _SECONDS
    while at < end:
        at += luck.expovariate(rate)
        time.sleep(max(0.0, at - time.monotonic()))
        due.put(at)
    for _ in clients:
        due.put(None)
    for client in clients:
        client.join(TIMEOUT)
    assert names.count("fast") + names.count("slow") == len(names)
    return took, names.count("fast")


def test_what_haproxy_costs(launch: Launch, tmp_path: Path) -> None:
    farm = Farm(launch, tmp_path)
    with farm.haproxy() as proxy:
        idle = _processor_s(proxy)
        time.sleep(_QUIET_S)
        print(
            f"\nchecks of two servers: {100 * (_processor_s(proxy) - idle) / _QUIET_S:.2f} % of a processor"
        )
        for kind, short, kept in ("a connection", 4, 0), ("a request on a kept connection", 0, 4):
            with Clients(farm.port, short, kept, pause=0) as clients:
                clients.until_more(1000)
                before, done = _processor_s(proxy), len(clients.answered)
                clients.until_more(20_000)
                spent, done = _processor_s(proxy) - before, len(clients.answered) - done
            print(f"{kind}: {1e6 * spent / done:.0f} us of HAProxy's processor time")


def _processor_s(proxy: Haproxy) -> float:
    """Return how much processor time HAProxy has used."""
    fields = Path(f"/proc/{proxy.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
