"""Figures of each command: every request is counted once, by how it ended, whatever becomes of its worker."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import HANDLERS, ServerProcess

pytestmark = pytest.mark.both

KINDS = ("requests", "ok", "client_error", "server_error", "timeout", "killed", "died")


def stats(server: ServerProcess) -> dict[str, Any]:
    """Return the figures of a server."""
    found: dict[str, Any] = json.loads(server.order("STATS json"))
    return found


def of(server: ServerProcess, command: str) -> dict[str, int]:
    """Return how the requests of a command have ended, without the kinds of which there are none."""
    rows = [row for row in stats(server)["commands"] if row["command"] == command]
    return {kind: row[kind] for row in rows for kind in KINDS if row[kind]}


def app_in(directory: Path, protocol: str) -> str:
    """Write an app with an ADD of that protocol; return its path."""
    path = directory / "adds.py"
    path.write_text(
        f"import linepool\n\napp = linepool.App(protocol={protocol})\n\n\n"
        "@app.handler\ndef add(a: int, b: int) -> int:\n    return a + b\n"
    )
    return str(path)


@pytest.mark.scheme("shared", "accept", "dispatch")
def test_each_request_is_counted_by_how_it_ended(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "1")
    script = b"ADD 1 2\n" * 100 + b"ADD x\nFAIL\nCOUNT 3\nNO_SUCH\n" + b"x" * 100_000 + b"\n"

    server.converse(script)

    assert of(server, "ADD") == {"requests": 101, "ok": 100, "client_error": 1}
    assert of(server, "FAIL") == {"requests": 1, "server_error": 1}
    assert of(server, "COUNT") == {"requests": 1, "ok": 1}
    assert of(server, "(unknown)") == {"requests": 1, "client_error": 1}
    assert of(server, "(malformed)") == {"requests": 1, "client_error": 1}
    assert stats(server)["queue"]["reads"] >= 1


@pytest.mark.scheme("shared", "accept")
@pytest.mark.linux("the client of a killed worker reads no error line")
def test_requests_that_end_with_their_worker_are_counted_too(launch: Launch, scheme):
    server = launch("stuck_for_good.py", "--workers", "2", "--request-timeout", "0.2")
    with server.connect() as peer:
        peer.send(b"STUCK_IN_C\n")
        assert peer.line().startswith("SERVER_ERROR")
        client = "{}:{}".format(*peer.socket.getsockname())
    server.until(lambda state: state["counters"]["kills"] == 1 and state["tally"]["total"] == 2)
    assert of(server, "STUCK_IN_C") == {"requests": 1, "killed": 1}
    (slow,) = [one for one in stats(server)["slowest"] if one["command"] == "STUCK_IN_C"]
    assert (slow["result"], slow["client"]) == ("killed", client)
    assert slow["took_s"] > 0.2


def test_a_request_that_its_worker_died_of_is_counted(launch: Launch):
    server = launch("workshop.py", "--workers", "1")

    assert server.converse(b"ADD 1 2\nDIE\n") in (b"", b"3\n")

    server.until(lambda state: state["counters"]["crashes"] == 1)
    assert of(server, "DIE") == {"requests": 1, "died": 1}
    assert of(server, "ADD") == {"requests": 1, "ok": 1}


def test_a_request_that_ran_past_its_limit_is_counted(launch: Launch):
    server = launch("stuck_in_python.py", "--workers", "1", "--request-timeout", "0.2")

    assert "longer than 0.2 s" in server.ask("STUCK_IN_A_LOOP")

    assert of(server, "STUCK_IN_A_LOOP") == {"requests": 1, "timeout": 1}


def test_nothing_is_lost_when_workers_are_recycled_and_code_is_loaded_anew(launch: Launch):
    server = launch("workshop.py", "--workers", "2", "--max-requests", "10")
    for number in range(60):
        assert server.ask("ADD 1 2") == "3"
        if number == 30:
            assert server.order("RELOAD").startswith("generation 2")

    assert of(server, "ADD") == {"requests": 60, "ok": 60}


def test_killed_workers_take_no_figures_with_them(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    before = 0
    for _ in range(3):
        server.converse(b"ADD 1 2\n" * 20)
        assert of(server, "ADD")["ok"] == before + 20
        before += 20
        (pid,) = server.pids()
        os.kill(pid, signal.SIGKILL)
        server.until_gone(pid)


def test_the_parts_of_a_transaction_are_counted_each_under_its_own_command(
    launch: Launch, tmp_path: Path
):
    server = launch(app_in(tmp_path, "linepool.Resp(transactions=True)"), "--workers", "1")

    server.converse(b"MULTI\r\nADD 1 2\r\nADD 1 x\r\nEXEC\r\nNO_SUCH\r\nQUIT\r\n")

    # Each when it is queued, and when it runs.
    assert of(server, "ADD") == {"requests": 4, "ok": 3, "client_error": 1}
    assert of(server, "EXEC") == {"requests": 1, "ok": 1}
    assert of(server, "(unknown)") == {"requests": 1, "client_error": 1}


def test_the_calls_of_a_batch_are_counted_and_the_batch_is_not(launch: Launch, tmp_path: Path):
    server = launch(app_in(tmp_path, "linepool.JsonRpc()"), "--workers", "1")
    calls = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": [1, 2]}
        for number, method in enumerate(["add", "add", "no_such"])
    ]

    server.converse(json.dumps(calls).encode() + b"\n" + json.dumps(calls[0]).encode() + b"\n")

    assert of(server, "add") == {"requests": 3, "ok": 3}
    assert of(server, "(unknown)") == {"requests": 1, "client_error": 1}


def test_commands_of_several_apps_are_told_apart(launch: Launch):
    server = launch(
        f"{HANDLERS}/shop.py:main", f"{HANDLERS}/shop.py:admin", "--workers", "1", bind=()
    )
    with server.connect(1) as peer:
        peer.send(b"PING\r\n" * 3)
        assert [peer.line() for _ in range(3)] == ["+PONG"] * 3

    assert of(server, "admin:PING") == {"requests": 3, "ok": 3}


def test_what_a_client_has_waited_for_a_busy_worker_is_counted(launch: Launch, gate):
    server = launch("workshop.py", "--workers", "1", "--hand-off-after", "5")
    with server.connect() as holding, server.connect() as waiting:
        assert waiting.ask("ADD 1 1") == "2"
        holding.send(b"HOLD x\n")
        gate.wait()
        waiting.send(b"ADD 1 2\n")
        time.sleep(0.05)  # is what it waits for
        gate.open()
        assert waiting.line() == "3"

    assert stats(server)["queue"]["p99_s"] > 0.02


def test_the_buckets_are_told_if_asked(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    server.converse(b"ADD 1 2\n" * 10 + b"FAIL\n")

    found = json.loads(server.order("STATS json buckets"))

    counts = {row["command"]: [count for _, count in row["buckets"]] for row in found["commands"]}
    assert {name: sum(each) for name, each in counts.items()} == {"ADD": 10, "FAIL": 1}
    assert all(all(each) for each in counts.values())
    assert sum(count for _, count in found["queue"]["buckets"]) == found["queue"]["reads"]
    assert "buckets" not in server.order("STATS json")


def test_lines_for_people(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    server.ask("ADD 1 2")

    with Peer(f"unix:{server.control}") as peer:
        lines = peer.ask_lines("STATS")

    assert lines[0].startswith("command command=ADD requests=1 ok=1 ")
    assert lines[1].startswith("queue reads=1 ")
