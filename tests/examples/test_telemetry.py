"""The examples for prometheus_client, Sentry and OpenTelemetry in the documents."""

import functools
import re
import time
from typing import Any

import attrs
import pytest
import sentry_sdk
from sentry_sdk.transport import Transport

import linepool
from tests.servers import ROOT, TIMEOUT, run_server


def example(page, text):
    """Return the Python example of a page that contains a text."""
    code = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (found,) = [one for one in re.findall(r"```python\n(.*?)```", code, re.DOTALL) if text in one]
    return found


def test_gauges_of_a_worker_that_has_ended_are_removed(tmp_path):
    app, directory = tmp_path / "orders.py", tmp_path / "metrics"
    app.write_text(example("handlers.md", "mark_process_dead"))
    directory.mkdir()
    options = ("--workers", "1")
    with run_server(app, tmp_path, *options, PROMETHEUS_MULTIPROC_DIR=str(directory)) as server:
        assert [server.ask("order") for _ in range(2)] == ["OK", "OK"]
        (pid,) = server.pids()
        file = directory / f"gauge_livesum_{pid}.db"
        assert file.exists()
        server.order("KILL 0")
        give_up_at = time.monotonic() + TIMEOUT
        while file.exists():
            assert time.monotonic() < give_up_at
            server.status()
        with server.connect() as peer:
            assert any("orders_total 2.0" in line for line in peer.ask_lines("metrics"))


class Memory(Transport):
    """Keeps events in place of sending them."""

    events: list[Any] = []  # noqa: RUF012 - of one test

    def capture_envelope(self, envelope):
        Memory.events.append(envelope.get_event())


def test_exceptions_are_reported_to_sentry(monkeypatch):
    app = linepool.App()
    for name in ("on_error", "on_worker_start"):
        monkeypatch.setattr(linepool, name, getattr(app, name))
    init = functools.partial(
        sentry_sdk.init, "http://key@127.0.0.1:9/1", transport=Memory, default_integrations=False
    )
    monkeypatch.setattr(sentry_sdk, "init", init)
    monkeypatch.setattr(Memory, "events", [])
    exec(example("howto/sentry.md", "start_sentry"), {})

    @app.handler
    def fail() -> None:
        raise KeyError("lost")

    try:
        reply = app.ask(b"fail\n").decode()
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)
    (event,) = Memory.events
    assert event["exception"]["values"][0]["type"] == "KeyError"
    assert event["tags"]["command"] == "fail"
    assert event["tags"]["request_id"] in reply


def test_the_end_of_a_worker_is_reported_to_sentry(monkeypatch):
    app = linepool.App()
    monkeypatch.setattr(linepool, "on_worker_end", app.on_worker_end)
    init = functools.partial(
        sentry_sdk.init, "http://key@127.0.0.1:9/1", transport=Memory, default_integrations=False
    )
    monkeypatch.setattr(sentry_sdk, "init", init)
    space: dict[str, Any] = {}
    exec(example("howto/sentry.md", "report_end"), space)
    monkeypatch.setattr(Memory, "events", [])
    why = "took longer than 30 s"
    killed = linepool.WorkerEnd(
        pid=1, slot=0, generation=1, how="killed", why=why, command="SEARCH"
    )
    try:
        space["report_end"](attrs.evolve(killed, how="recycled", why="max_requests"))
        space["report_end"](killed)
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)
    (event,) = Memory.events
    assert event["message"] == f"worker killed: {why}"
    assert (event["level"], event["tags"]["command"]) == ("error", "SEARCH")


@pytest.mark.parametrize("text", ["def add(a: int", "ConsoleSpanExporter"])
def test_examples_of_opentelemetry_make_an_app(text):
    space: dict[str, Any] = {}
    exec(example("howto/opentelemetry.md", text), space)
    assert isinstance(space["app"], linepool.App)
