"""The alerts and the dashboard for Prometheus, checked by promtool and by a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Launch
from tests.process.test_exporter import HTTP, address, until
from tests.servers import ROOT, TIMEOUT, ServerProcess

HERE = ROOT / "examples" / "prometheus"
DASHBOARD: dict[str, Any] = json.loads((HERE / "dashboard.json").read_text())
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$command": "ADD"}


def expressions() -> list[str]:
    """Return the expressions of the dashboard, with values for its variables."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    found += [one["expr"] for one in DASHBOARD["annotations"]["list"]]
    for name, value in VARIABLES.items():
        found = [one.replace(name, value) for one in found]
    return found


def promtool(*words: str) -> None:
    """Run promtool beside the rules; it must have nothing to say against them."""
    done = subprocess.run(
        ["promtool", *words], cwd=HERE, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid_and_fire_when_they_should():
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts_test.yml")


def test_the_dashboard_has_everything_in_its_place():
    places = set[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & places
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    used = set(re.findall(r"\$\w+", json.dumps(DASHBOARD["panels"])))
    assert used <= {*VARIABLES, "$__all", "$datasource"}


class Prometheus:
    """A Prometheus that scrapes some servers each second."""

    def __init__(self, directory: Path, servers: list[ServerProcess]) -> None:
        config = directory / "prometheus.yml"
        targets = json.dumps([address(server) for server in servers])
        config.write_text(
            "scrape_configs:\n- job_name: linepool\n  scrape_interval: 1s\n"
            f"  static_configs: [{{targets: {targets}}}]\n"
            f"rule_files: ['{HERE / 'alerts.yml'}']\n"
        )
        self._errors = directory / "prometheus.log"
        with open(self._errors, "wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stderr=log,
            )
        self._port = 0

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression gives now."""
        query = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{self._found_port()}/api/v1/query?{query}"
        with urllib.request.urlopen(url, timeout=TIMEOUT) as reply:
            found: dict[str, Any] = json.load(reply)
        assert found["status"] == "success", found
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def _found_port(self) -> int:
        if not self._port:
            found = re.search(r'Listening on" address=127.0.0.1:(\d+)', self._errors.read_text())
            if found is None:
                raise ConnectionRefusedError("it does not listen yet")
            self._port = int(found[1])
        return self._port


@pytest.fixture
def prometheus(launch: Launch, tmp_path: Path) -> Iterator[Prometheus]:
    """Give a Prometheus that scrapes two servers."""
    servers = [launch("workshop.py", "--workers", "1", *HTTP) for _ in range(2)]
    for server in servers:
        server.converse(b"ADD 1 2\n" * 7 + b"FAIL\n")
    prometheus = Prometheus(tmp_path, servers)
    try:
        yield prometheus
    finally:
        prometheus.process.kill()
        prometheus.process.wait()


def test_a_real_prometheus_scrapes_two_servers_and_reads_the_dashboard(prometheus: Prometheus):
    requests = 'linepool_requests_total{command="ADD",outcome="ok"}'
    found = until(lambda: prometheus.ask(requests), lambda found: len(found) == 2)

    assert [one["value"][1] for one in found] == ["7", "7"]
    assert [one["value"][1] for one in prometheus.ask("linepool_up")] == ["1", "1"]
    for expression in expressions():
        prometheus.ask(expression)
    quantile = "histogram_quantile(0.5, sum by (le) (linepool_request_duration_seconds_bucket))"
    (median,) = prometheus.ask(quantile)
    assert 0 < float(median["value"][1]) < 1
