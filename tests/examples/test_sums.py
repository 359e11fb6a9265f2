import re
import subprocess

import pytest

from tests.servers import ENVIRONMENT, EXAMPLES, run_server


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    with run_server(
        EXAMPLES / "sums.py", tmp_path_factory.mktemp("sums"), "--workers", "2"
    ) as server:
        yield server


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("ADD 2 3", "5"),
        ("add -2 3", "1"),
        ("MEAN 1 2 6", "3.0"),
        ("average 1 2", "1.5"),
        ("DIVIDE 1 8", "0.125"),
        ("DIVIDE 1 0", "CLIENT_ERROR b must not be 0."),
        ("ADD 2 x", "CLIENT_ERROR b must be int, not 'x'. Usage: ADD a:int b:int"),
        ("ADD 2", "CLIENT_ERROR b is missing. Usage: ADD a:int b:int"),
        ("FRO", "ERROR unknown command 'FRO'. HELP lists the commands."),
    ],
)
def test_a_line_gets_its_reply(sums, line, reply):
    with sums.connect() as peer:
        assert peer.ask(line) == reply


def test_a_countdown_comes_line_by_line_and_ends(sums):
    with sums.connect() as peer:
        assert peer.ask_lines("COUNTDOWN 3") == ["3", "2", "1"]
        assert peer.ask_lines("COUNTDOWN 0") == []
        assert peer.ask("ADD 1 1") == "2"


def test_help_shows_every_command_with_its_arguments(sums):
    with sums.connect() as peer:
        usages = [line.partition("  ")[0] for line in peer.ask_lines("HELP")]
    assert usages == [
        "ADD a:int b:int",
        "MEAN first:float [more:float ...]",
        "DIVIDE a:float b:float",
        "COUNTDOWN start:int",
        "HELP [command:str]",
        "QUIT",
    ]


def test_the_demo_shows_replies_and_pool_and_cleans_up(tmp_path):
    demo = subprocess.run(
        ["sh", EXAMPLES / "demo.sh"],
        env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (demo.returncode, demo.stderr) == (0, "")
    _, _, rest = demo.stdout.partition("--- replies\n")
    replies, _, rest = rest.partition("--- $ linepool status\n")
    status, _, rest = rest.partition("--- $ linepool stop\n")
    stop, _, log = rest.partition("--- the server's log\n")
    assert replies.startswith("5\n3.0\nCLIENT_ERROR b must be int, not 'x'.")
    assert "\n3\n2\n1\nEND\n" in replies
    assert replies.endswith("\nEND\n")
    assert "name sums\n" in status
    assert status.count("\nworker slot=") == 4
    assert stop == "stopping gracefully\n"
    assert "\nready: 4 workers\n" in log
    assert not list(tmp_path.iterdir())
    _, _, at_work = log.partition("--- a pool at work")
    assert re.search(r"^[1-8] of \d+ +max 12 ", at_work, re.MULTILINE)
    looks = re.findall(r"^[\d:]+ busy=(\d+) workers=(\d+) max=12 ", at_work, re.MULTILINE)
    assert (looks[0], looks[-1]) == (("0", "2"), ("0", "2"))
    assert max(int(workers) for _, workers in looks) >= 7
    assert " scaling pool: +" in at_work
    assert " scaling pool: -" in at_work
