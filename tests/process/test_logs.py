"""The log: complete whatever the app configures, limited by kind, and without a client's bytes."""

import os
import re
import signal

import pytest

APP = "logging_of_its_own.py"
LIMITED = ("--log-limit", "6")  # the default
WAYS = (
    "nothing",
    "dictConfig",
    "dictConfig without handlers",
    "logging.disable",
    "level of root",
    "level of linepool",
    "NullHandler",
    "no propagation",
    "no handlers",
    "broken handler",
    "broken format",
    "broken factory",
)
PLACES = ("module", "on_start", "on_worker_start", "handler")
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ +\S")
FORGED = "2026-01-01T00:00:00.000Z ERROR   worker killed pid=1"
ESCAPES = "\x1b\x07\x9b\u2028\u202e\r"


def set_up(way: str, where: str) -> dict[str, str]:
    """Return the variables that say how, and at what moment, the app sets up logging."""
    return {"WAY": way, "WHERE": where}


@pytest.mark.parametrize(
    ("way", "where"),
    [(way, PLACES[at % len(PLACES)]) for at, way in enumerate(WAYS)]
    + [("dictConfig", where) for where in ("module", "on_worker_start", "handler")],
)
def test_a_failure_and_a_death_are_in_the_log_whatever_the_app_configures(
    way, where, launch, tmp_path
):
    out = tmp_path / "stdout"
    with out.open("wb") as stdout:
        server = launch(APP, "--workers", "1", environment=set_up(way, where), stdout=stdout)
    reply = server.ask("FAIL boom")
    assert reply.startswith("SERVER_ERROR internal error, id ")
    [worker] = server.pids()
    os.kill(worker, signal.SIGKILL)
    server.until_gone(worker)
    assert server.stop() == 0
    text = server.text + out.read_text()
    assert f"worker died pid={worker} signal=SIGKILL" in text
    assert f"handler failed id={reply.split()[-1]}" in text
    assert text.count("ValueError: boom") == 1
    assert "--- Logging error ---" not in text


@pytest.mark.parametrize("where", ["module", "on_start", "on_worker_start"])
def test_basicconfig_has_its_format_and_its_level_wherever_it_is_called(where, launch):
    server = launch(APP, "--workers", "1", environment=set_up("basicConfig", where))
    server.ask("NOTE here")
    assert server.wait_for("fine grained") == "MINE fine grained"
    assert server.wait_for("noted") == "MINE noted here"
    server.ask("FAIL boom")
    assert server.wait_for("handler failed").startswith("MINE handler failed id=")


def test_without_any_set_up_the_records_of_the_app_are_written_from_info_on(launch):
    server = launch(APP, "--workers", "1")
    server.ask("NOTE here")
    assert re.search(r"Z WARNING noted here$", server.wait_for("noted"))
    assert "fine grained" not in server.text


@pytest.mark.parametrize("way", ["nothing", "basicConfig"])
def test_what_a_client_sent_cannot_make_a_line_of_the_log_or_reach_the_terminal(way, launch):
    server = launch(APP, "--workers", "1", environment=set_up(way, "module"))
    text = f"x\n{FORGED}{ESCAPES}".replace("\n", "\\n").replace("\r", "\\r")
    ask = ["FAIL", "WARN"] if way == "basicConfig" else ["FAIL", "NOTE", "WARN"]
    for command in ask:
        server.converse(f'{command} "{text}"\nQUIT\n'.encode())
    assert server.stop() == 0
    assert not [line for line in server.text.splitlines() if line.startswith(FORGED[:10])]
    if way == "nothing":
        assert server.text.count(FORGED) >= len(ask)
        assert not any(character in server.text for character in ESCAPES)


def test_a_fault_writes_few_lines_a_minute_on_the_whole_server_and_their_number(launch):
    server = launch(APP, "--workers", "4", *LIMITED)
    for _ in range(5):
        with server.connect() as peer:
            peer.send(b"FAIL boom\nFAIL bang\n" * 100 + b"FAIL_TOO\nQUIT\n")
            peer.rest()
    assert server.stop() == 0
    events = [line for line in server.text.splitlines() if LINE.match(line)]
    failed = [line for line in events if "handler failed" in line]
    assert 4 + 4 <= len([line for line in failed if "lines left out" not in line]) <= 4 + 4 + 6
    left_out = [line for line in failed if "lines left out" in line]
    counts = [int(re.findall(r"count=(\d+)", line)[0]) for line in left_out]
    assert sum(counts) + len(failed) - len(left_out) == 1005
    assert any("KeyError" in line for line in left_out)
    assert "another fault" in server.text


def test_every_id_that_a_client_reads_leads_to_the_traceback_of_its_fault(launch):
    server = launch(APP, "--workers", "1", *LIMITED)
    replies = server.converse(b"FAIL boom\n" * 20 + b"FAIL_TOO\nQUIT\n").decode().splitlines()
    ids = [reply.split()[-1] for reply in replies if reply.startswith("SERVER_ERROR")]
    assert len(set(ids)) > 15
    assert server.stop() == 0
    for number in ids:
        assert f"handler failed id={number[:4]}" in server.text


def requests_that_are_logged(server):
    """Have a request be slow, then overdue, then killed, and another one crash; for both commands."""
    for command in ("LOGIN ann", "LOOK at"):
        server.converse(f"{command} late s3cret\nQUIT\n".encode())
        for how in ("hang", "crash"):
            [worker] = server.pids()
            server.converse(f"{command} {how} s3cret\n".encode())
            server.until(
                lambda state, old=worker: old not in pids(state) and state["tally"]["idle"]
            )
    server.converse(b"s3cret pass\nQUIT\n")
    assert server.stop() == 0
    assert server.text.count("slow request") == 4
    assert server.text.count("worker killed") == 2
    assert server.text.count("worker died") == 2
    assert server.text.count("request overdue") == 2
    assert server.text.count("handler failed") == 1
    return server.text


def pids(state):
    return [worker["pid"] for worker in state["workers"]]


QUICK = (
    "--workers",
    "1",
    "--request-timeout",
    "0.4",
    "--kill-grace",
    "0.2",
    "--slow-request",
    "0.1",
)


def test_words_of_requests_are_not_in_the_log(launch):
    text = requests_that_are_logged(launch("confidential.py", *QUICK))
    assert "s3cret" not in text
    assert "ann" not in text
    assert "command=LOGIN " in text
    assert "command=(unknown) " in text


def test_if_requests_are_to_be_logged_those_with_secrets_are_still_not(launch):
    text = requests_that_are_logged(launch("confidential.py", *QUICK, "--log-requests", "line"))
    assert "command=LOOK at hang s3cret" in text
    assert "command=LOOK at crash s3cret" in text
    assert text.count("LOOK at late s3cret") == 2
    assert text.count("s3cret") == 5  # slow twice, overdue, killed, died
    assert "ann" not in text


def test_the_number_of_lines_left_out_is_logged_even_if_nothing_else_is(launch):
    server = launch(APP, "--workers", "1", *LIMITED)
    server.converse(b"FAIL boom\n" * 20 + b"QUIT\n")
    assert " count=16 " in server.wait_for("lines left out")
