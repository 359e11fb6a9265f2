"""The exporter: metrics, probes and the state over HTTP, and agent-checks, beside a server that serves on."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from linepool.exporter.server import MOST_CLIENTS
from tests.conftest import Launch
from tests.servers import TIMEOUT, Gate, ServerProcess

HTTP = ("--http", "127.0.0.1:0")


class Page:
    """What a server has under one path."""

    def __init__(self, status: int, text: str, headers: dict[str, str]) -> None:
        self.status = status
        self.text = text
        self.headers = headers


def get(
    server: ServerProcess, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> Page:
    """Ask the exporter of a server."""
    connection = http.client.HTTPConnection(address(server), timeout=TIMEOUT)
    try:
        connection.request(method, path, headers=headers or {})
        reply = connection.getresponse()
        return Page(reply.status, reply.read().decode(), dict(reply.getheaders()))
    finally:
        connection.close()


def address(server: ServerProcess) -> str:
    """Return where the exporter of a server serves."""
    (line,) = [line for line in server.log if "http on http://" in line]
    return line.partition("http on http://")[2].rstrip("/")


def until(ask: Callable[[], Any], holds: Callable[[Any], object]) -> Any:
    """Ask until a condition holds; return the answer."""
    give_up_at = time.monotonic() + TIMEOUT
    while True:
        try:
            found = ask()
            if holds(found):
                return found
        except (OSError, http.client.HTTPException) as error:  # it is being started
            found = error
        assert time.monotonic() < give_up_at, f"the condition never held: {found}"
        time.sleep(0.02)


def until_page(server: ServerProcess, path: str, holds: Callable[[Page], object]) -> Page:
    """Ask the exporter until a condition holds; return the page."""
    page: Page = until(lambda: get(server, path), holds)
    return page


def values(text: str) -> dict[str, float]:
    """Return the samples of metrics by name and labels."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.fixture
def server(launch: Launch) -> ServerProcess:
    """Give a server with an exporter."""
    server = launch("workshop.py", "--workers", "2", *HTTP)
    until_page(server, "/readyz", lambda page: page.status == 200)
    return server


@pytest.fixture(scope="module")
def quiet_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Give a server with an exporter that tests share, for they do not change it."""
    directory = tmp_path_factory.mktemp("quiet")
    with ServerProcess(directory, "workshop.py", "--workers", "1", *HTTP) as server:
        until_page(server, "/readyz", lambda page: page.status == 200)
        yield server


def test_metrics_are_as_prometheus_wants_them(server: ServerProcess):
    server.converse(b"ADD 1 2\n" * 10 + b"FAIL\nADD x\nNO_SUCH\n")
    name = 'linepool_requests_total{command="ADD",outcome="ok"}'

    page = until_page(server, "/metrics", lambda page: values(page.text).get(name) == 10)

    assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = values(page.text)
    assert found['linepool_requests_total{command="FAIL",outcome="server_error"}'] == 1
    assert found['linepool_requests_total{command="(unknown)",outcome="client_error"}'] == 1
    assert found['linepool_request_duration_seconds_count{command="ADD"}'] == 11
    assert found['linepool_request_duration_seconds_bucket{command="ADD",le="+Inf"}'] == 11
    assert found['linepool_workers{state="idle"}'] == 2
    assert found["linepool_up"] == found["linepool_ready"] == 1
    assert found["linepool_queue_duration_seconds_count"] >= 1
    assert found['linepool_resident_memory_bytes{process="worker"}'] > 1e6
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=page.text,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_no_counter_falls_while_workers_are_killed(launch: Launch):
    server = launch("workshop.py", "--workers", "2", *HTTP)
    before: dict[str, float] = {}
    for _ in range(4):
        server.converse(b"ADD 1 2\n" * 5)
        pid = server.pids()[0]
        os.kill(pid, signal.SIGKILL)
        server.until_gone(pid)
        found = values(until_page(server, "/metrics", lambda page: page.status == 200).text)
        counters = {
            name: value
            for name, value in found.items()
            if "_total" in name or "_bucket" in name or "_count" in name
        }
        assert not {name for name in before if counters.get(name, -1.0) < before[name]}
        before = counters


def test_histograms_are_cumulative_and_agree_with_the_counts(server: ServerProcess):
    server.converse(b"ADD 1 2\n" * 50)
    ok = 'linepool_requests_total{command="ADD",outcome="ok"}'
    page = until_page(server, "/metrics", lambda page: values(page.text).get(ok) == 50)

    found = values(page.text)
    prefix = 'linepool_request_duration_seconds_bucket{command="ADD",le='
    buckets = [value for name, value in found.items() if name.startswith(prefix)]
    assert len(buckets) == 21
    assert buckets == sorted(buckets)
    assert buckets[-1] == 50


def test_the_state_as_json(server: ServerProcess):
    server.converse(b"ADD 1 2\n")
    page = until_page(
        server, "/status.json", lambda page: page.status == 200 and "ADD" in page.text
    )

    state = json.loads(page.text)
    assert state["server"]["pid"] == server.process.pid
    assert state["server"]["processes"]["exporter"] == server.status()["processes"]["exporter"]
    assert state["commands"][0]["command"] == "ADD"
    assert page.headers["Content-Type"] == "application/json"


def test_the_history_begins_where_a_client_has_it(server: ServerProcess):
    def history(after: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(get(server, f"/status.json?after={after}").text)
        rows: dict[str, Any] = found["history"]
        return rows

    first = until(lambda: history("0"), lambda found: len(found["rows"]) >= 2)
    assert [len(row) for row in first["rows"]] == [len(first["columns"])] * len(first["rows"])
    assert first["rows"][-1][first["columns"].index("total")] == 2

    more = until(lambda: history(str(first["newest"])), lambda found: found["rows"])

    assert len(more["rows"]) == more["newest"] - first["newest"]
    assert more["rows"][0][0] > first["rows"][-1][0]
    assert "history" not in json.loads(get(server, "/status.json").text)
    assert get(server, "/status.json?after=x").text == (
        "after must be a whole number, such as /status.json?after=0\n"
    )


def test_the_verdict_and_what_has_happened_of_late(server: ServerProcess):
    server.converse(b"ADD 1 2\n" * 3)

    found = until(
        lambda: json.loads(get(server, "/status.json").text),
        lambda found: found["recent"]["commands"],
    )

    assert found["verdict"]["condition"] == "ok"
    (add,) = found["recent"]["commands"]
    assert (add["command"], add["requests"]) == ("ADD", 3)
    assert sum(count for _, count in add["buckets"]) == 3


def test_incidents_that_have_changed(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1", "--request-timeout", "0.1", *HTTP)

    def incidents(change: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            get(server, f"/status.json?incidents={change}").text
        )["incidents"]
        return found

    until_page(server, "/status.json", lambda page: page.status == 200)
    assert incidents(0) == []
    server.converse(b"HOLD x\n")  # to its timeout
    gate.wait()

    (first,) = until(lambda: incidents(0), bool)

    assert (first["kind"], first["command"], first["count"]) == ("timeout", "HOLD", 1)
    assert first["stack"]
    assert incidents(first["change"]) == []
    assert "incidents" not in json.loads(get(server, "/status.json").text)
    assert get(server, "/status.json?incidents=x").status == 400
    server.converse(b"HOLD x\n")  # to its timeout
    gate.wait()
    (again,) = until(lambda: incidents(first["change"]), bool)
    assert (again["number"], again["count"]) == (first["number"], 2)


@pytest.mark.parametrize("scheme", ["shared", "accept", "dispatch"])
@pytest.mark.linux("without TCP_INFO one counts")
def test_clients_that_wait_are_counted(launch: Launch, gate: Gate, scheme: str):
    server = launch("workshop.py", "--workers", "1", "--scheme", scheme, *HTTP)
    until_page(server, "/status.json", lambda page: page.status == 200)
    with ExitStack() as opened:
        clients = [opened.enter_context(server.connect()) for _ in range(3)]
        clients[0].send(b"HOLD 0\n")
        gate.wait()
        for client in clients[1:]:
            client.send(b"HOLD 1\nQUIT\n")

        found = until(
            lambda: json.loads(get(server, "/status.json?after=0").text),
            lambda found: found["verdict"]["condition"] == "full",
        )

        assert found["verdict"]["sentence"] == "2 clients wait, and the pool cannot grow."
        assert found["server"]["waiting"] == found["history"]["rows"][-1][4] == 2
        gate.open(3)
        clients[0].send(b"QUIT\n")
        assert [client.line() for client in clients] == ["0", "1", "1"]


def test_the_page(server: ServerProcess):
    page = get(server, "/")

    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
    assert page.text.startswith("<!doctype html>")


# -- probes


def test_a_drained_server_is_alive_and_not_ready(server: ServerProcess):
    assert server.order("DRAIN") == "draining"

    page = until_page(server, "/readyz", lambda page: page.status == 503)

    assert page.text.startswith("the server is drain")
    assert get(server, "/healthz").status == 200
    server.order("SCALE 1")
    until_page(server, "/readyz", lambda page: page.status == 200)


def test_a_server_that_has_no_worker_yet_is_not_ready(launch: Launch, tmp_path: Path):
    (tmp_path / "slow.to-boot").touch()
    server = launch(
        "stuck_in_recycling.py",
        "--workers",
        "1",
        *HTTP,
        environment={"SLOW": str(tmp_path / "slow")},
        ready=False,
    )
    server.wait_for("listening on")
    page = until_page(server, "/readyz", lambda page: "the server is starting" in page.text)
    assert page.status == 503

    (tmp_path / "slow.to-boot").unlink()

    until_page(server, "/readyz", lambda page: page.status == 200)


def test_a_saturated_server_is_ready_unless_that_is_asked(launch: Launch, gate):
    server = launch("workshop.py", "--workers", "1", *HTTP)
    with server.connect() as holding, server.connect() as waiting:
        holding.send(b"HOLD x\n")
        gate.wait()
        waiting.send(b"HOLD y\n")

        until_page(server, "/readyz?saturated=0.1", lambda page: "saturated for " in page.text)
        assert get(server, "/readyz").status == 200
        gate.open(2)
        assert (holding.line(), waiting.line()) == ("x", "y")
    until_page(server, "/readyz?saturated=0.1", lambda page: page.status == 200)


def test_a_master_that_does_not_answer_is_not_alive(server: ServerProcess, monkeypatch):
    server.send(signal.SIGSTOP)
    try:
        page = until_page(server, "/healthz", lambda page: page.status == 503)
        assert page.text.startswith("the master has not answered for ")
        assert values(get(server, "/metrics").text)["linepool_up"] == 0
        found = json.loads(get(server, "/status.json").text)
        assert found["verdict"]["sentence"].startswith("The master has not answered for ")
    finally:
        server.send(signal.SIGCONT)
    until_page(server, "/healthz", lambda page: page.status == 200)
    newest = json.loads(get(server, "/status.json?after=0").text)["history"]["newest"]
    until_page(
        server,
        f"/status.json?after={newest}&incidents=0",
        lambda page: len(json.loads(page.text)["history"]["rows"]) >= 2,
    )
    assert "exporter died" not in "".join(server.log)


@pytest.mark.parametrize("wrong", ["x", "-1", "nan", "1e300"])
def test_a_wrong_query_is_answered(quiet_server: ServerProcess, wrong: str):
    page = get(quiet_server, f"/readyz?saturated={wrong}")

    assert (page.status, page.text) == (
        400,
        "saturated must be a number of seconds, such as /readyz?saturated=10\n",
    )


# -- the agent-check of HAProxy


def agent(server: ServerProcess, sent: bytes = b"") -> str:
    """Return what the agent-check of a server is answered, up to its end."""
    (line,) = [line for line in server.log if "agent-check on " in line]
    host, port = line.partition("agent-check on ")[2].split(":")
    with socket.create_connection((host, int(port)), TIMEOUT) as sock:
        sock.sendall(sent)
        with sock.makefile("rb") as replies:
            return replies.read().decode()


def weight(line: str) -> int:
    """Return the weight that an agent says."""
    return int(line.removeprefix("up ready ").removesuffix("%\n"))


@pytest.mark.parametrize("scheme", ["shared", "accept", "dispatch"])
def test_the_agent_says_how_many_workers_are_idle(launch: Launch, gate, scheme: str):
    server = launch("workshop.py", "--workers", "2", "--scheme", scheme, "--agent", "127.0.0.1:0")

    until(lambda: agent(server), lambda line: line == "up ready 100%\n")
    with server.connect() as first, server.connect() as second:
        for peer in first, second:
            peer.send(b"HOLD x\n")
            gate.wait()
        until(lambda: weight(agent(server, b"shop\n")), lambda percent: 1 <= percent < 60)
        gate.open(2)
        assert first.line() == second.line() == "x"
    until(lambda: weight(agent(server, b"x" * 100_000)), lambda percent: percent > 60)


def test_the_agent_says_that_a_server_is_drained_and_is_back(launch: Launch):
    server = launch("workshop.py", "--workers", "2", "--agent", "127.0.0.1:0")
    until(lambda: agent(server), lambda line: line == "up ready 100%\n")
    server.order("DRAIN")

    until(lambda: agent(server), lambda line: line == "drain\n")

    server.order("SCALE +0")
    until(lambda: agent(server), lambda line: line.startswith("up ready "))


def test_the_agent_says_that_a_server_stops(launch: Launch, gate):
    server = launch("workshop.py", "--workers", "1", "--agent", "127.0.0.1:0")
    until(lambda: agent(server), lambda line: line == "up ready 100%\n")
    with server.connect() as peer:
        peer.send(b"HOLD x\n")
        gate.wait()
        server.send(signal.SIGTERM)

        until(lambda: agent(server), lambda line: line == "drain\n")

        gate.open(1)
        assert peer.line() == "x"


def test_the_agent_says_that_a_server_starts(launch: Launch, tmp_path: Path):
    (tmp_path / "slow.to-boot").touch()
    server = launch(
        "stuck_in_recycling.py",
        *("--workers", "1", "--agent", "127.0.0.1:0"),
        environment={"SLOW": str(tmp_path / "slow")},
        ready=False,
    )
    server.wait_for("agent-check on ")
    until(lambda: agent(server), lambda line: line == "down #starting\n")

    (tmp_path / "slow.to-boot").unlink()

    until(lambda: agent(server), lambda line: line.startswith("up ready "))


def test_the_agent_goes_on_beside_http_after_it_died_and_after_an_upgrade(launch: Launch):
    server = launch("workshop.py", "--workers", "1", "--agent", "127.0.0.1:0", *HTTP)
    until(lambda: agent(server), lambda line: line == "up ready 100%\n")
    pid = server.status()["processes"]["exporter"]
    os.kill(pid, signal.SIGKILL)
    server.until(lambda state: state["processes"]["exporter"] not in (None, pid))
    until(lambda: agent(server), lambda line: line == "up ready 100%\n")
    until_page(server, "/readyz", lambda page: page.status == 200)

    server.order("UPGRADE")
    server.until(lambda state: state["generation"] == 2)

    until(lambda: agent(server), lambda line: line.startswith("up ready "))
    until_page(server, "/readyz", lambda page: page.status == 200)


def test_many_clients_that_stay_do_not_keep_the_agent_from_answering(launch: Launch):
    server = launch("workshop.py", "--workers", "1", "--agent", "127.0.0.1:0")
    until(lambda: agent(server), lambda line: line == "up ready 100%\n")
    (line,) = [line for line in server.log if "agent-check on " in line]
    host, port = line.partition("agent-check on ")[2].split(":")
    staying = [socket.create_connection((host, int(port)), TIMEOUT) for _ in range(200)]

    assert agent(server) == "up ready 100%\n"

    for sock in staying:
        sock.close()


# -- strange requests


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/nothing", "GET", {}, 404),
        ("/healthz", "HEAD", {}, 200),
        ("/healthz", "POST", {}, 501),
        ("/healthz", "GET", {"Host": "evil.example"}, 421),
        ("/healthz", "GET", {"Host": "evil.example:80"}, 421),
        ("/healthz", "GET", {"Host": "127.0.0.1.evil.example"}, 421),
        ("/healthz", "GET", {"Host": "[::1]:80"}, 200),
        ("/healthz", "GET", {"Host": "localhost"}, 200),
        ("/healthz", "GET", {"Host": "a.localhost:1"}, 200),
        ("/healthz", "GET", {"Host": "[nonsense"}, 421),
        ("/healthz", "GET", {"Host": "192.0.2.1"}, 200),
        ("//evil.example/healthz", "GET", {}, 404),
        ("/metrics/../healthz", "GET", {}, 404),
    ],
)
def test_requests_are_answered_or_refused(quiet_server, path, method, headers, status):
    page = get(quiet_server, path, method, headers)

    assert page.status == status
    if method == "HEAD":
        assert page.text == ""


def test_replies_allow_nothing_to_a_browser(quiet_server: ServerProcess):
    headers = get(quiet_server, "/metrics").headers

    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP", b"\0\xff\r\n\r\n", b"GET /" + b"x" * 100_000 + b"\r\n\r\n"]
)
def test_nonsense_does_not_keep_others_from_being_answered(
    quiet_server: ServerProcess, sent: bytes
):
    host, port = address(quiet_server).split(":")
    with socket.create_connection((host, int(port)), TIMEOUT) as sock:
        sock.sendall(sent)

        assert get(quiet_server, "/healthz").status == 200


def test_many_clients_that_send_nothing_do_not_keep_probes_from_being_answered(quiet_server):
    host, port = address(quiet_server).split(":")
    silent = [socket.create_connection((host, int(port)), TIMEOUT) for _ in range(MOST_CLIENTS + 8)]

    assert get(quiet_server, "/healthz").status == 200  # once the first of them have had their time

    for sock in silent:
        sock.close()


# -- its life


def test_an_exporter_that_dies_is_replaced_and_the_server_does_not_notice(server: ServerProcess):
    pid = server.status()["processes"]["exporter"]
    os.kill(pid, signal.SIGKILL)

    server.wait_for("exporter died signal=SIGKILL")

    state = server.until(lambda state: state["processes"]["exporter"] not in (None, pid))
    until_page(server, "/readyz", lambda page: page.status == 200)
    assert state["counters"]["spawned"] == 2
    assert server.ask("ADD 1 2") == "3"


def test_it_ends_with_the_server(server: ServerProcess):
    pidfd = os.pidfd_open(server.status()["processes"]["exporter"])
    assert server.stop() == 0

    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)


def test_it_ends_with_a_master_that_is_killed(server: ServerProcess):
    pid = server.status()["processes"]["exporter"]
    pidfd = os.pidfd_open(pid)
    server.send(signal.SIGKILL)

    def is_gone() -> bool:
        try:
            signal.pidfd_send_signal(pidfd, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    until(is_gone, bool)
    os.close(pidfd)


def test_it_goes_on_after_a_reload_and_an_upgrade(server: ServerProcess):
    before = address(server)
    assert server.order("RELOAD").startswith("generation 2")
    until_page(server, "/metrics", lambda page: values(page.text).get("linepool_generation") == 2)

    pidfd = os.pidfd_open(server.status()["processes"]["exporter"])
    server.order("UPGRADE")
    server.until(lambda state: state["generation"] == 3)
    assert select.select([pidfd], [], [], TIMEOUT)[
        0
    ]  # the old one does not serve beside the new one
    os.close(pidfd)

    page = until_page(
        server, "/metrics", lambda page: values(page.text).get("linepool_generation") == 3
    )
    assert page.status == 200
    assert address(server) == before


def test_a_unix_socket(launch: Launch, tmp_path: Path):
    server = launch("workshop.py", "--workers", "1", "--http", f"unix:{tmp_path}/http")

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect(f"{tmp_path}/http")
            sock.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            with sock.makefile("rb") as replies:
                return replies.read()

    assert until(ask, lambda reply: reply.startswith(b"HTTP/1.0 200 ")).endswith(b"ok\n")
    server.stop()
    assert not (tmp_path / "http").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--http", "nonsense"), "must be HOST:PORT, PORT, unix:/PATH or off"),
        (("--http", "fd://3"), "must be HOST:PORT, PORT, unix:/PATH or off"),
        (("--http", "unix:@abstract"), "must be HOST:PORT, PORT, unix:/PATH or off"),
        (("--http", "192.0.2.1:80"), "http: cannot listen on 192.0.2.1:80: "),
        (("--http", "127.0.0.1:0", "--control", "off"), "http needs the control socket"),
        (("--http", "127.0.0.1:0", "--http-hosts", "a:80"), "names of hosts without a port"),
        (("--agent", "nonsense"), "must be HOST:PORT, PORT or off"),
        (("--agent", "unix:/tmp/agent"), "must be HOST:PORT, PORT or off"),
        (("--agent", "192.0.2.1:80"), "agent: cannot listen on 192.0.2.1:80: "),
        (("--agent", "127.0.0.1:0", "--control", "off"), "agent needs the control socket"),
    ],
)
def test_mistakes_are_named(launch: Launch, options, said):
    server = launch("workshop.py", *options, ready=False)

    server.wait_for(said)
    assert server.ended() != 0


def test_where_it_serves_is_not_changed_by_a_reload(launch: Launch, tmp_path: Path):
    (tmp_path / "linepool.toml").write_text('http = "127.0.0.1:0"\n')
    server = launch("workshop.py", "--workers", "1", "--config", "linepool.toml")
    (tmp_path / "linepool.toml").write_text('http = "off"\n')

    with pytest.raises(Exception, match=r"http cannot change .*restart the server"):
        server.order("RELOAD")
