"""The client under load: reloads, kills and restarts of its servers; calls that end at any moment.

``--calls`` says how many calls are cancelled, and a tenth as many interrupted by a signal handler;
``--reloads`` how often a server is reloaded; half as often its workers are killed, and servers restarted.
"""

from __future__ import annotations

import asyncio

import pytest

from linepool import App, AsyncClient, Client
from linepool.testing import serve
from tests.torture.client_load import Calls, Journaled, cancel_calls, interrupt_calls
from tests.torture.table import show_table


def text(value: str) -> str:
    return value


@pytest.fixture
def server():
    app = App()
    app.handler(text)
    with serve(app, workers=2) as server:
        yield server


def test_no_reply_of_a_cancelled_call_reaches_another(server, calls):
    async def run():
        async with AsyncClient(server.address, max_connections=8) as client:
            return await cancel_calls(client, calls)

    done = asyncio.run(run())
    show_table(["cancelled", "done", "wrong replies"], [[calls, done, 0]])


def test_no_reply_of_an_interrupted_call_reaches_another(server, calls):
    with Client(server.address, max_connections=1, timeout=10) as client:
        interrupted = interrupt_calls(client, calls // 10)
    show_table(["interrupted", "wrong replies"], [[interrupted, 0]])


def test_calls_fail_only_where_they_must(launch, tmp_path, reloads):
    rows = []
    for name, rounds in [("reload", reloads), ("kill", reloads // 2), ("restart", reloads // 2)]:
        directory = tmp_path / name
        directory.mkdir()
        journaled = Journaled(launch, directory, count=2 if name == "restart" else 1)
        seen = Calls()
        with seen.running(journaled.addresses):
            for number in range(1, rounds + 1):
                seen.more(10)
                if name == "reload":
                    journaled.reload(number)
                elif name == "kill":
                    journaled.kill_workers(seen)
                else:
                    journaled.restart(number % 2)
            seen.more(10)
        journaled.check(seen)
        if name == "reload":
            assert not seen.failed
        repeatable = sum(number % 2 == 0 for number in seen.failed)
        rows.append([name, rounds, len(seen.done), repeatable, len(seen.failed) - repeatable])
    show_table(["", "times", "done", "failed: idempotent", "others, as sent"], rows)
