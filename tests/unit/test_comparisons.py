"""The comparison with other servers counts what clients notice, and its pages say what was counted."""

import math
import threading
from collections import Counter

import pytest

from benchmarks.comparisons import pages, tables
from benchmarks.comparisons.contenders import OURS, all_contenders
from benchmarks.comparisons.crowd import Crowd, Outcome, Story, percentile
from benchmarks.comparisons.trials import (
    Crash,
    Deployment,
    Growth,
    Hang,
    Report,
    Size,
    Speed,
)
from benchmarks.comparisons.wires import (
    CLOSED,
    ERROR,
    REFUSED,
    Client,
    FailedError,
    Functions,
    Http,
    Lines,
)

LIMIT = 40.0  # seconds; only there to fail
CONTENDERS = all_contenders()
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(pages.PAGES.glob("*.md"))}


class Scripted(Client):
    """A client that meets with what a script says, one entry for each request, and then waits for its end.

    An entry is the kind of a failure, or "": a reply. A connection for which the script says "cut" next is
    found to be closed before its request.
    """

    def __init__(self, script: list[str], ended: threading.Event) -> None:
        self.script = script
        self.ended = ended
        self.aborted = threading.Event()

    def ask(self, limit: float, command: str, *arguments: object) -> str:
        if not self.script:
            self.ended.set()
            assert self.aborted.wait(LIMIT)
            raise FailedError(CLOSED, "aborted")
        if kind := self.script.pop(0):
            raise FailedError(kind, kind)
        return "OK"

    def is_cut(self) -> bool:
        if self.script[:1] == ["cut"]:
            self.script.pop(0)
            return True
        return False

    def abort(self) -> None:
        self.aborted.set()

    def close(self) -> None:
        pass


def story(script: list[str]) -> Story:
    """Return what is counted of one client that meets with a script."""
    ended = threading.Event()
    crowd = Crowd(lambda: Scripted(script, ended), 1, 10_000.0, ("VERSION",))
    assert ended.wait(LIMIT)
    (found,) = crowd.stop().stories
    return found


def outcome(*stories: Story) -> Outcome:
    return Outcome(list(stories) or [Story(latencies=[0.010, 0.030])])


def report(name: str, cpu_us: float = 10.0) -> Report:
    (contender,) = (one for one in CONTENDERS if one.name == name)
    return Report(
        contender=contender,
        speed=Speed(rps=1e6 / cpu_us, cpu_us=cpu_us),
        hang=Hang(others=outcome(), reads="nothing", computes=True),
        stall=outcome() if contender.can_wait else None,
        crash=Crash(others=outcome(), reads="nothing", served_after=0.2),
        deployment=Deployment(others=outcome(), took=1.0),
        growth=Growth(
            before=outcome(),
            during=outcome(),
            size_before=Size(processes=1, threads=2),
            size_during=Size(processes=3, threads=4),
        ),
    )


def test_each_request_is_counted_once_as_answered_or_by_its_failure():
    found = story(["", ERROR, REFUSED, "", CLOSED, "", "cut", ""])

    assert len(found.latencies) == 4
    assert found.failed == {ERROR: 1, REFUSED: 1, CLOSED: 1}
    assert found.cut == 2  # under a request, and between two


def test_a_request_that_waits_at_the_end_is_no_failure():
    found = story([""])

    assert (len(found.latencies), found.failed) == (1, Counter())
    assert found.waiting > 0
    assert found.longest >= found.waiting


def test_clients_are_held_up_by_a_long_wait_and_by_a_failure():
    found = outcome(
        Story(latencies=[0.1, 0.2]),
        Story(latencies=[0.1, 0.7]),
        Story(latencies=[0.1], failed=Counter({ERROR: 2}), in_vain=0.3),
        Story(waiting=3.0),
    )

    assert (found.held_up, found.is_held, found.longest, found.answered) == (3, True, 3.0, 5)
    assert found.failed.total() == 2


def test_the_longest_wait_includes_requests_that_failed():
    assert outcome(Story(latencies=[0.1], in_vain=2.0)).longest == 2.0


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 5), (0.99, 10), (1.0, 10)])
def test_a_percentile_is_a_value_that_was_measured(share, value):
    assert percentile(range(10, 0, -1), share) == value


def test_nothing_has_no_percentile():
    assert math.isnan(percentile([], 0.5))


def test_a_request_that_waits_at_the_end_counts_in_the_percentiles():
    assert outcome(Story(latencies=[0.1]), Story(waiting=9.0)).percentile(0.99) == 9.0


@pytest.mark.parametrize(
    ("value", "ours", "text"),
    [
        (25.0, 10.0, "2.50"),
        (123.4, 10.0, "12"),
        (0.001, 10.0, "< 0.01"),
        (0.0, 10.0, "-"),
        (1.0, 0.0, "-"),
        (math.nan, 1.0, "-"),
    ],
)
def test_a_ratio_is_shown_where_it_says_something(value, ours, text):
    assert tables.ratio(value, ours) == text


def test_a_table_has_the_peers_then_linepool_then_the_ratios():
    text = tables.table(
        tables.SPEED, report(OURS), [report("asyncio", 20.0), report("uvloop", 5.0)]
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]

    assert cells[0][1:4] == ["asyncio streams", "uvloop streams", "linepool"]
    assert cells[3][1:] == ["20.0", "5.0", "10.0", "2.00", "0.50"]


def test_what_a_server_cannot_do_is_left_out():
    text = tables.table(tables.STALL, report(OURS), [report("redis")])

    assert [line.split("|")[2].strip() for line in text.splitlines()[2:]] == ["-", "-"]


@pytest.mark.parametrize(
    ("failed", "text"),
    [(Counter(), "0"), (Counter({"refused": 1, "cut off": 2}), "2 cut off, 1 refused")],
)
def test_failures_are_shown_by_their_kind(failed, text):
    assert tables.failures(failed) == text


def bare(kind: type[Lines] | type[Http] | type[Functions]) -> Lines | Http | Functions:
    return object.__new__(kind)  # without a connection


@pytest.mark.parametrize(
    ("kind", "request_", "reply", "text"),
    [
        (Lines, b"COLLATZ 27\n", b"111\n", "111"),
        (
            Http,
            b"GET /collatz?n=27 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n111\n",
            "111",
        ),
        (
            Functions,
            b"*4\r\n$5\r\nFCALL\r\n$7\r\ncollatz\r\n$1\r\n0\r\n$2\r\n27\r\n",
            b":111\r\n",
            "111",
        ),
    ],
)
def test_a_client_speaks_its_protocol(kind, request_, reply, text):
    client = bare(kind)

    assert client.request("COLLATZ", (27,)) == request_
    assert [client.parse(reply[:end]) for end in range(len(reply))] == [None] * len(reply)
    assert client.parse(reply) == text


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        (Lines, b"CLIENT_ERROR n must be int\n"),
        (Http, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        (Functions, b"-ERR n must be a number\r\n"),
    ],
)
def test_an_error_is_not_a_reply(kind, reply):
    with pytest.raises(FailedError) as failure:
        bare(kind).parse(reply)

    assert failure.value.kind == ERROR


def test_http_says_whether_the_connection_ends_after_the_reply():
    client = bare(Http)
    client.parse(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nOK\n")

    assert client.closes


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_shows_the_code_of_the_services_as_it_is(page):
    assert pages.with_code(TEXTS[page]) == TEXTS[page], (
        "run: ./dev python -m benchmarks.comparisons.pages"
    )


@pytest.mark.parametrize("page", TEXTS)
def test_every_block_of_figures_is_written_by_a_run(page):
    reports = [report(one.name) for one in CONTENDERS]
    known = pages.blocks_of(page, reports, "- conditions")
    wanted: list[str] = []

    def content(name: str) -> str:
        wanted.append(name)
        return "new"

    changed = pages.with_blocks(TEXTS[page], "figures", content)

    assert wanted
    assert set(wanted) <= known.keys()
    assert "<!-- end -->\n\n<!-- end -->" not in TEXTS[page]
    assert changed.count("-->\nnew\n<!-- end -->") == len(wanted)


def test_every_server_has_a_page_with_its_code_and_linepools():
    for contender in CONTENDERS[1:]:
        text = TEXTS[contender.page]
        assert f"<!-- code: {contender.file} -->" in text
        assert "<!-- code: linepool_service.py -->" in text
        assert f"({contender.page}.md)" in TEXTS["index"]


def test_every_page_has_figures():
    for page, text in TEXTS.items():
        assert not any(
            name == "figures" and not content for name, _, content in pages.BLOCK.findall(text)
        ), f"{page}: run ./dev bench comparisons --write"


def test_lines_of_code_are_those_with_code(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text(
        '"""Docstring,\n\nlong."""\n\nimport os  # comment\n\n\n# comment\ndef f(a):\n'
        '    """Docstring."""\n    b = """text\n    text"""\n    return (\n        a, b\n    )\n'
    )
    (tmp_path / "a.lua").write_text("#!lua name=a\n-- comment\n\nlocal a = 1\n  -- comment\nf(a)\n")
    monkeypatch.setattr(pages, "SERVICES", tmp_path)

    assert [pages.code_lines(name) for name in ("a.py", "a.lua")] == [7, 2]
