"""Clients while their servers reload, die and start again, and while their own calls are interrupted."""

from __future__ import annotations

from linepool import App, Client
from linepool.testing import serve
from tests.torture.client_load import Calls, Journaled, interrupt_calls


def text(value: str) -> str:
    return value


def test_no_call_fails_while_the_server_reloads_and_kills_fail_only_what_may_not_be_repeated(
    launch, tmp_path
):
    journaled = Journaled(launch, tmp_path)
    calls = Calls()
    with calls.running(journaled.addresses):
        calls.more(10)
        journaled.reload(1)
        calls.more(10)
        assert not calls.failed
        journaled.kill_workers(calls)
    journaled.check(calls)


def test_no_call_that_may_be_repeated_fails_while_one_of_two_servers_starts_again(launch, tmp_path):
    journaled = Journaled(launch, tmp_path, count=2)
    calls = Calls()
    with calls.running(journaled.addresses):
        calls.more(10)
        journaled.restart(0)
        calls.more(10)
    journaled.check(calls)


def test_a_call_that_a_signal_handler_ends_leaves_no_reply_and_keeps_no_connection():
    app = App()
    app.handler(text)
    with serve(app, workers=1) as server, Client(server.address, max_connections=1) as client:
        assert interrupt_calls(client.with_options(timeout=10), 300) == 300
