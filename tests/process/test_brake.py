"""A command that has ended several workers is refused for a while; everything else is served."""

from __future__ import annotations

import json
import os
import signal

import pytest

from linepool import App, Dialogue, JsonRpc, Memcache, Protocol, Resp
from linepool.operate.shown import state_as_lines
from linepool.testing import Server, serve
from tests.conftest import Launch
from tests.servers import ServerProcess

WORKERS = ("--workers", "3", "--respawn-backoff", "0.01")
REFUSED = "SERVER_ERROR POISON is refused for "


def retry(server: ServerProcess, line: str) -> tuple[int, str]:
    """Send a line until there is a reply; return how often it was sent in vain, and the reply."""
    for times in range(50):
        if reply := server.ask(line):
            return times, reply
    raise AssertionError(f"{line} was never refused")


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_a_poison_that_a_client_retries_costs_a_few_workers(launch: Launch):
    server = launch("poisonous.py", *WORKERS)

    times, reply = retry(server, "POISON exit")

    # A client may be quicker than the master, as often as there are other workers.
    assert 5 <= times <= 7
    assert reply == f"{REFUSED}10 s: workers died of it"
    assert server.ask("POISON nothing").startswith(REFUSED)
    assert server.ask("ADD 2 3") == "5"
    state = server.status()
    (brake,) = state["brakes"]
    assert (brake["command"], brake["deaths"]) == ("POISON", times)
    assert 0 < brake["left_s"] <= 10
    counters = state["counters"]
    assert (counters["crashes"], counters["braked"], counters["errors"]) == (times, 2, 2)
    assert f"brake command=POISON deaths={times} left_s={brake['left_s']}" in state_as_lines(state)
    server.wait_for("command refused for a while: workers died of it command=POISON deaths=5")


@pytest.mark.parametrize("how", ["exit0", "kill", "hang"])
def test_every_way_to_end_a_worker_counts(launch: Launch, how):
    limits = ("--request-timeout", "0.1", "--kill-grace", "0.05", "--poison-deaths", "2")
    server = launch("poisonous.py", *WORKERS, *limits)

    replies = [server.ask(f"POISON {how}") for _ in range(2)]

    assert not any(reply.startswith(REFUSED) for reply in replies)
    server.until(lambda state: state["brakes"])
    assert server.ask(f"POISON {how}").startswith(REFUSED)


def test_after_its_pause_a_command_is_served_again_until_one_more_worker_dies(launch: Launch):
    server = launch("poisonous.py", *WORKERS, "--poison-pause", "0.3")
    retry(server, "POISON exit")
    server.wait_for("command served again command=POISON")

    assert server.ask("POISON nothing") == "nothing"
    assert 1 <= retry(server, "POISON exit")[0] <= 3


def test_deaths_that_no_command_caused_do_not_count(launch: Launch):
    server = launch("poisonous.py", *WORKERS, "--poison-deaths", "1", "--graceful-timeout", "0.1")
    for _ in range(3):
        assert server.ask("POISON nothing") == "nothing"
        state = server.until(lambda state: len(state["workers"]) == 3)
        for worker in state["workers"]:
            os.kill(worker["pid"], signal.SIGKILL)
            server.until_gone(worker["pid"])

    assert server.ask("POISON nothing") == "nothing"
    assert server.status()["counters"]["crashes"] == 9


@pytest.mark.scheme("shared")
def test_unknown_commands_and_those_that_middleware_chose_are_braked_too(launch: Launch):
    server = launch("poisonous.py", *WORKERS)

    assert retry(server, "PILL exit")[1] == f"{REFUSED}10 s: workers died of it"
    assert server.ask("POISON nothing").startswith(REFUSED)
    assert retry(server, "WHATEVER")[1].startswith("SERVER_ERROR (unknown) is refused for ")
    assert server.ask("ADD 2 3") == "5"


def test_with_poison_deaths_0_no_command_is_refused(launch: Launch):
    server = launch("poisonous.py", *WORKERS, "--poison-deaths", "0")

    assert {server.ask("POISON exit") for _ in range(8)} == {""}
    assert server.ask("POISON nothing") == "nothing"


# -- in other protocols


def poison() -> None:
    """End the worker."""
    os._exit(3)


def fine() -> str:
    """Return a word."""
    return "fine"


def ask(server: Server, protocol: Protocol, request: bytes) -> bytes:
    """Send a request on a new connection; return everything that comes back."""
    with server.connect() as peer:
        if isinstance(protocol, Dialogue):
            peer.line()
        peer.send(request)
        return peer.rest()


def ask_until(server: Server, protocol: Protocol, request: bytes, text: bytes) -> bytes:
    """Send a request, each time on a new connection, until a text comes back; return it all."""
    for _ in range(50):
        if text in (reply := ask(server, protocol, request)):
            return reply
    raise AssertionError(f"{text!r} never came")


@pytest.mark.parametrize(
    ("protocol", "request_", "error", "other"),
    [
        (
            Resp(),
            b"%b\r\n",
            b"-ERR POISON is refused for 10 s: workers died of it\r\n",
            b"$4\r\nfine\r\n",
        ),
        (
            Resp(transactions=True),
            b"MULTI\r\n%b\r\nEXEC\r\n",
            b"+OK\r\n+QUEUED\r\n*1\r\n-ERR POISON is refused for 10 s: workers died of it\r\n",
            b"+OK\r\n+QUEUED\r\n*1\r\n$4\r\nfine\r\n",
        ),
        (
            Memcache(),
            b"%b\r\n",
            b"SERVER_ERROR poison is refused for 10 s: workers died of it\r\n",
            b"fine\r\n",
        ),
        (
            Dialogue(greeting="220 x"),
            b"%b\r\n",
            b"451 POISON is refused for 10 s: workers died of it\r\n",
            b"250 fine\r\n",
        ),
    ],
    ids=["resp", "resp-multi", "memcache", "dialogue"],
)
def test_a_refusal_is_an_error_of_the_protocol(protocol, request_, error, other):
    app = App(protocol=protocol)
    app.handler("poison")(poison)
    app.handler("fine")(fine)
    with serve(app, workers=2, poison_deaths=2) as server:
        assert ask_until(server, protocol, request_ % b"poison", b"refused") == error
        assert ask(server, protocol, request_ % b"fine") == other


@pytest.mark.parametrize("in_batch", [False, True])
def test_in_a_batch_only_the_calls_of_the_braked_method_are_refused(in_batch):
    app = App(protocol=JsonRpc())
    app.handler("poison")(poison)
    app.handler("fine")(fine)

    def message(*methods: str) -> bytes:
        calls = [{"jsonrpc": "2.0", "method": one, "id": 1} for one in methods]
        return json.dumps(calls if in_batch or len(calls) > 1 else calls[0]).encode() + b"\n"

    with serve(app, workers=2, poison_deaths=2) as server:
        ask_until(server, app.protocol, message("poison"), b"refused")

        replies = json.loads(ask(server, app.protocol, message("fine", "poison", "fine")))

    assert [reply.get("result") for reply in replies] == ["fine", None, "fine"]
    assert replies[1]["error"]["message"] == "poison is refused for 10 s: workers died of it"
