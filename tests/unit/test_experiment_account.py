"""The account of the experiments finds each kind of fault; it is what their verdicts rest on."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from tests.torture.experiments.account import Journals, Kill, Report, losses
from tests.torture.experiments.generator import TIMED_OUT, Request, judged

_WORKER = "100.1000000000"  # pid 100, first request at 1 s
_LOST = Request(7, "closed", "", 5000, opened_at=1.0, sent_at=2.0, ended_at=3.0)
_RIGHT = evolve(_LOST, how="", worker=_WORKER)
_KILL = Kill(100, 2.5, frozenset({5000}))


def _journals(*lines: str, worker: str = _WORKER) -> Journals:
    began = [(worker, int(line[1:])) for line in lines if line[0] == "+"]
    return Journals(began, {(worker, int(line[1:])) for line in lines if line[0] == "-"}, [])


def _class(request: Request, journals: Journals, *kills: Kill, taken: tuple[int, ...] = ()) -> str:
    counts = losses([request], journals, kills, taken).counts
    return next((kind for kind, count in counts.items() if count), "")


@pytest.mark.parametrize(
    ("request_", "journals", "kills", "expected"),
    [
        (_RIGHT, _journals("+7", "-7"), [], ""),
        (_LOST, _journals(), [_KILL], "L1"),
        (_LOST, _journals("+7"), [_KILL], "L2"),
        (_LOST, _journals("+7"), [], "L3"),
        (_LOST, _journals(), [evolve(_KILL, ports=frozenset({5001}))], "L3"),
        (_LOST, _journals(), [evolve(_KILL, at=3.5)], "L3"),
        (_LOST, _journals(), [evolve(_KILL, at=0.5)], "L3"),
        (_LOST, _journals(), [evolve(_KILL, at=0.5, until=1.5)], "L1"),  # opened while some lived
        (_LOST, _journals(), [evolve(_KILL, at=2.5, until=2.8)], "L1"),
        (_LOST, _journals(), [evolve(_KILL, ports=None)], "L1"),
        (_LOST, _journals("+7"), [evolve(_KILL, pid=101)], "L3"),
        (_LOST, _journals("+7", worker="100.2600000000"), [_KILL], "L3"),  # the pid was used again
        (evolve(_LOST, how=TIMED_OUT), _journals("+7"), [_KILL], "L3"),
        (evolve(_LOST, how="error: x"), _journals("+7"), [_KILL], "L2"),
        (evolve(_LOST, how="error: x"), _journals(), [_KILL], "L2"),
        (evolve(_LOST, how="error: x"), _journals(), [], "L3"),
        (evolve(_LOST, how="error: x"), _journals("+7"), [], "L3"),
    ],
)
def test_a_lost_request_is_in_the_right_class(request_, journals, kills, expected):
    assert _class(request_, journals, *kills) == expected


def test_a_request_that_a_killed_worker_had_taken_counts_as_begun():
    assert _class(_LOST, _journals(), taken=(7,)) == "L2"


@pytest.mark.parametrize(
    ("requests", "journals", "fault"),
    [
        ([evolve(_LOST, how="wrong: b'8'")], _journals("+7", "-7"), "wrong replies: 1"),
        ([_RIGHT], _journals("+7", "+7", "-7"), "begun twice: 1"),
        ([_RIGHT], _journals("-7"), "replies of a worker that did not run the request: 1"),
        ([_RIGHT], _journals("+7", "-7", "+8"), "cut off in a worker that was not killed: 1"),
        ([_LOST], _journals(), "lost for no reason (L3): 1"),
    ],
)
def test_a_report_names_each_fault(requests, journals, fault):
    report = Report("T", 1)
    report.add(requests, journals, [])

    assert f"{fault}, must be 0" in report.faults
    assert '"verdict": "FAIL"' in report.line()


def test_a_report_of_a_run_without_faults_passes():
    report = Report("T", 1)
    report.add([_RIGHT], _journals("+7", "-7"), [])

    assert not report.faults
    assert '"verdict": "pass"' in report.line()


def test_journals_tell_of_workers_that_ended_themselves(tmp_path: Path):
    (tmp_path / _WORKER).write_text("+7\n-7\n+8\n!2.5:5000,5001\n")

    journals = Journals.read(tmp_path)

    assert journals.begun_by == {7: [_WORKER], 8: [_WORKER]}
    assert journals.kills == [Kill(100, 2.5, frozenset({5000, 5001}))]


@pytest.mark.parametrize(
    ("line", "how"),
    [(b"7 w 8\n", "wrong"), (b"SERVER_ERROR x\r\n", "error: SERVER_ERROR x"), (b"", "wrong")],
)
def test_a_reply_without_its_proof_is_not_right(line, how):
    assert judged(7, line)[0].startswith(how)
