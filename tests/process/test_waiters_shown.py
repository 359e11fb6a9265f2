"""What is shown of requests that wait without a worker."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.test_control import linepool, talk
from tests.process.test_exporter import HTTP, get, until_page, values
from tests.servers import ServerProcess

ODD = r"\xff\x1b x"
NONE: dict[str, Any] = {"requests": 0, "oldest_s": None, "topics": []}


@contextmanager
def waiting(server: ServerProcess, *requests: str) -> Iterator[list[Peer]]:
    """Have clients send requests that wait, one after the other, until the server shows them."""
    with ExitStack() as stack:
        peers = []
        for request in requests:
            peers.append(stack.enter_context(server.connect()))
            peers[-1].send(f"{request}\n".encode())
            server.until(lambda state: state["waiters"]["requests"] == len(peers))
        yield peers


def topics(state: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Return for each topic the command and the number of its requests."""
    return {one["topic"]: (one["command"], one["requests"]) for one in state["waiters"]["topics"]}


def test_requests_that_wait_are_shown_with_what_they_wait_for(launch: Launch):
    server = launch("awaiting.py", "--workers", "2", *HTTP)
    requests = ("TAKE jobs", "TAKE jobs", "FETCH mail x")
    shown = {"jobs": ("TAKE", 2), "mail": ("FETCH", 1), ODD: ("FETCH", 1)}
    with waiting(server, *requests) as (first, second, _):
        state = server.until(lambda state: topics(state) == shown)

        waiters = state["waiters"]
        assert list(waiters) == ["requests", "oldest_s", "topics"]
        assert [list(one) for one in waiters["topics"]] == [
            ["topic", "command", "requests", "oldest_s"]
        ] * 3
        assert waiters["topics"][0]["topic"] == "jobs"
        assert waiters["oldest_s"] == max(one["oldest_s"] for one in waiters["topics"]) > 0
        assert state["waiting"] == 0  # that is about connections
        with talk(server) as control:
            for command in ("status", "stacks"):
                ours = linepool(command, "--control", server.control).stdout.splitlines()
                theirs = control.ask_lines(command)
                for lines in (ours, theirs):
                    assert any(one.startswith("waiters requests=3 oldest_s=") for one in lines)
                    assert any(
                        one.startswith("topic topic=jobs command=TAKE requests=2 oldest_s=")
                        for one in lines
                    )
        rows = json.loads(linepool("stacks", "--json", "--control", server.control).stdout)
        assert [row["slot"] for row in rows] == [0, 1]
        until_page(
            server, "/metrics", lambda page: values(page.text).get("linepool_waiting_requests") == 3
        )
        page = until_page(
            server,
            "/status.json",
            lambda page: len(json.loads(page.text)["server"]["waiters"]["topics"]) == 3,
        )
        assert "mail" not in page.text  # words of requests are for the control socket only
        assert 'id="waiters"' in get(server, "/").text

        with server.connect() as other:
            assert other.ask("PUT jobs") == "OK"
        assert [peer.line() for peer in (first, second)] == ["woken", "woken"]
        server.until(lambda state: topics(state) == {"mail": ("FETCH", 1), ODD: ("FETCH", 1)})
    server.until(lambda state: state["waiters"] == NONE)
    assert "waiters" not in linepool("stacks", "--control", server.control).stdout


def test_those_of_a_parker_that_dies_are_not_shown_any_more(launch: Launch):
    server = launch("awaiting.py", "--workers", "1")
    with waiting(server, "TAKE jobs", "TAKE jobs"):
        state = server.until(lambda state: topics(state) == {"jobs": ("TAKE", 2)})
        os.kill(state["processes"]["parker"], signal.SIGKILL)
        server.until(lambda state: state["waiters"] == NONE)
