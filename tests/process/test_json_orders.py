"""``--json`` of the commands that give a running server orders: one object, also for an error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from linepool import cli
from tests.conftest import Launch


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Give what runs a command with --json; it returns the exit status and the object."""

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        status = cli.main([*words, "--json"])
        out, err = capsys.readouterr()
        (line,) = out.splitlines()
        assert err == ""
        found: dict[str, Any] = json.loads(line)
        return status, found

    return run


def test_orders_that_are_obeyed_and_refused(launch: Launch, run):
    server = launch("workshop.py", "--workers", "2")
    control = ("--control", server.control)

    assert run("health", *control) == (0, {"ok": True, "state": "ready", "workers": 2})
    assert run("scale", "3", *control) == (0, {"ok": True, "reply": "workers 3"})
    status, refused = run("scale", "0", *control)
    assert (status, refused["ok"]) == (1, False)
    assert "must be N or MIN:MAX" in refused["error"]
    status, none = run("kill", "99", *control)
    assert (status, none["ok"]) == (1, False)
    assert none["error"].startswith("no worker in slot 99; slots with workers: 0, 1")
    pid = server.pids()[1]
    assert run("kill", "1", *control) == (
        0,
        {"ok": True, "reply": f"killing worker slot=1 pid={pid}"},
    )
    assert run("reopen", *control)[0] == 1
    assert run("drain", *control) == (0, {"ok": True, "reply": "draining"})
    server.until(lambda state: state["state"] == "drained")
    status, condition = run("health", *control)
    assert (status, condition["error"]) == (1, "not ready: the server is drained")
    assert run("health", "--live", *control)[1]["state"] == "drained"
    assert run("stop", "--now", *control) == (0, {"ok": True, "reply": "stopping now"})
    assert server.ended() == 0


@pytest.mark.parametrize(
    "words", [("health",), ("scale", "2"), ("drain",), ("reopen",), ("kill", "0"), ("stop",)]
)
def test_without_a_server_the_error_is_an_object(run, words):
    status, found = run(*words, "--control", "/none")

    assert status == 1
    assert list(found) == ["ok", "error"]
    assert found["error"].startswith("cannot reach a server at /none: ")
