"""The services that are compared answer alike; here those that need no further package."""

import contextlib

import pytest

from benchmarks import harness
from benchmarks.comparisons.contenders import Running, all_contenders
from benchmarks.comparisons.trials import running
from benchmarks.comparisons.wires import ERROR, FailedError

LIMIT = 40.0  # seconds; only there to fail
NAMES = ("linepool", "asyncio", "threads", "forks")


def refusal(server: Running, *request: str) -> str:
    """Return the kind of failure with which a request is refused."""
    with contextlib.closing(server.connect()) as client:
        with pytest.raises(FailedError) as failure:
            client.ask(LIMIT, *request)
        assert client.ask(LIMIT, "VERSION")  # the connection lives on
    return failure.value.kind


@pytest.mark.parametrize(
    "contender", [one for one in all_contenders() if one.name in NAMES], ids=lambda one: one.name
)
def test_a_service_answers_like_the_others_and_takes_new_code(contender):
    with running(contender) as server:
        with contextlib.closing(server.connect()) as client:
            requests = (("COLLATZ", 27), ("COLLATZ", 1), ("SLEEP", 0.001), ("VERSION",))
            replies = [client.ask(LIMIT, *map(str, request)) for request in requests]
        assert replies == ["111", "0", "OK", "1"]
        assert refusal(server, "COLLATZ", "x") == ERROR
        assert refusal(server, "NONSENSE") == ERROR

        server.write_version(2)
        contender.deploy(server)
        harness.until("the new code answers", lambda: server.probe() == "2", LIMIT)
