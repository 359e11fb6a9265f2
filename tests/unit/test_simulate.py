"""The simulation, and through it the behaviour of the policy over time."""

import io
import itertools
import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.cli import main
from linepool.errors import SetupError
from linepool.pool.scoreboard import Tally
from linepool.pool.simulate import DRAIN_NS, Simulation, simulate
from linepool.pool.traces import Arrival, burst, parse, poisson
from linepool.settings import Settings, Workers

SECOND = 1_000_000_000
MS = 1_000_000

TRACES = st.lists(
    st.builds(
        Arrival,
        at_ns=st.integers(0, 20_000).map(lambda ms: ms * MS),
        service_ns=st.one_of(st.integers(0, 50), st.integers(0, 5_000)).map(lambda ms: ms * MS),
    ),
    min_size=1,
    max_size=60,
).map(lambda trace: sorted(trace, key=lambda arrival: arrival.at_ns))
BOOTS = st.sampled_from([0, 5 * MS, 300 * MS])


@st.composite
def pools(draw, rates=(0.5, 3.0, 32.0)):
    low = draw(st.integers(1, 4))
    min_spare = draw(st.integers(0, 3))
    return Settings(
        workers=Workers(low, low + draw(st.integers(0, 12))),
        min_spare=min_spare,
        max_spare=min_spare + draw(st.integers(0, 3)),
        grow_delay=draw(st.sampled_from([0.0, 0.02, 0.1, 0.5])),
        max_spawn_rate=draw(st.sampled_from(rates)),
        shrink_window=draw(st.sampled_from([0.5, 2.0, 6.0])),
        min_worker_age=draw(st.sampled_from([0.0, 1.0, 5.0])),
    )


def play(trace, settings, boot_ns=5 * MS):
    return list(Simulation(trace, settings, boot_ns).run())


def idle_size(settings):
    """Return the size of a pool that has not been used for a long time."""
    return max(settings.workers.min, min(settings.max_spare, settings.workers.max))


# -- any load, any pool


@given(TRACES, pools(), BOOTS)
def test_the_pool_stays_within_its_bounds(trace, settings, boot_ns):
    sizes = {moment.tally.total for moment in play(trace, settings, boot_ns)}

    assert settings.workers.min <= min(sizes)
    assert max(sizes) <= settings.workers.max


@given(TRACES, pools(), BOOTS)
def test_every_client_is_served_in_the_order_of_arrival(trace, settings, boot_ns):
    simulation = Simulation(trace, settings, boot_ns)
    last = list(simulation.run())[-1]
    begun = [
        arrival.at_ns + waited for arrival, waited in zip(trace, simulation.waited_ns, strict=True)
    ]

    assert begun == sorted(begun)
    assert (last.tally.busy, last.backlog) == (0, 0)


@given(TRACES, pools(rates=(1000.0,)), BOOTS)
def test_a_waiting_client_gets_a_worker_within_the_delay_and_a_turn_if_none_is_idle(
    trace, settings, boot_ns
):
    limit_ns = max(round(settings.grow_delay * 1e9), DRAIN_NS) + DRAIN_NS + 1
    since_ns = None
    for moment in play(trace, settings, boot_ns):
        tally = moment.tally
        if since_ns is not None:
            assert moment.at_ns - since_ns <= limit_ns
        if tally.idle or moment.backlog <= tally.starting or tally.total == settings.workers.max:
            since_ns = None
        elif since_ns is None:
            since_ns = moment.at_ns


@given(TRACES, pools(rates=(1000.0,)), BOOTS)
def test_missing_spare_workers_are_spawned_within_a_turn(trace, settings, boot_ns):
    since_ns = None
    for moment in play(trace, settings, boot_ns):
        tally = moment.tally
        if since_ns is not None:
            assert moment.at_ns - since_ns <= DRAIN_NS
        full = tally.total == settings.workers.max
        if tally.idle + tally.starting >= settings.min_spare or full:
            since_ns = None
        elif since_ns is None:
            since_ns = moment.at_ns


@given(TRACES, pools(rates=(32.0, 1000.0)), BOOTS)
def test_after_the_load_the_pool_shrinks_within_the_window_and_a_turn(trace, settings, boot_ns):
    moments = play(trace, settings, boot_ns)
    quiet_ns = max(
        after.at_ns for before, after in itertools.pairwise(moments) if before.tally.busy
    )
    spawned_ns = max((moment.at_ns for moment in moments if moment.spawned), default=0)
    window_ns = quiet_ns + round(settings.shrink_window * 1e9)
    age_ns = spawned_ns + round(settings.min_worker_age * 1e9)
    late = [
        moment.tally.total
        for moment in moments
        if moment.at_ns >= max(window_ns, age_ns) + DRAIN_NS
    ]

    assert {*late, moments[-1].tally.total} == {moments[-1].tally.total}
    assert moments[-1].tally.total <= idle_size(settings)


@given(TRACES, pools(), BOOTS)
def test_no_worker_is_retired_soon_after_a_spawn(trace, settings, boot_ns):
    spawned_ns = -SECOND * 100
    for moment in play(trace, settings, boot_ns):
        if moment.retired:
            assert moment.at_ns - spawned_ns >= settings.min_worker_age * 1e9 - 1
        if moment.spawned:
            spawned_ns = moment.at_ns


@given(TRACES, pools(rates=(0.5, 3.0)), BOOTS)
def test_the_spawn_rate_is_not_exceeded(trace, settings, boot_ns):
    forks = [
        moment.at_ns for moment in play(trace, settings, boot_ns) for _ in range(moment.spawned)
    ]
    at_once = max(1, int(settings.max_spawn_rate), settings.workers.min)

    for (first, begin), (last, end) in itertools.combinations(enumerate(forks), 2):
        seconds = (end - begin) / SECOND
        assert last - first + 1 <= at_once + settings.max_spawn_rate * seconds + 1e-6


@given(
    st.lists(
        st.builds(
            Arrival,
            at_ns=st.integers(0, 900).map(lambda ms: ms * MS),
            service_ns=st.integers(0, 400).map(lambda ms: ms * MS),
        ),
        min_size=1,
        max_size=12,
    ),
    pools(rates=(32.0,)),
)
def test_a_load_that_repeats_within_the_window_causes_no_further_changes(round_, settings):
    period_ns = min(SECOND, round(settings.shrink_window * 0.9e9))
    rounds = 40
    trace = sorted(
        (
            Arrival(arrival.at_ns % period_ns + number * period_ns, arrival.service_ns)
            for number in range(rounds)
            for arrival in round_
        ),
        key=lambda arrival: arrival.at_ns,
    )
    settled_ns = 10 * SECOND + round(2 * settings.shrink_window * 1e9)
    moments = play(trace, settings)
    changes = [
        moment
        for moment in moments
        if (moment.spawned or moment.retired) and settled_ns <= moment.at_ns <= trace[-1].at_ns
    ]

    assert changes == []


@pytest.mark.parametrize("clients", [1, 5, 40, 64])
@pytest.mark.parametrize("period", [3, 10, 59])
def test_no_worker_is_retired_between_bursts_that_repeat_within_the_window(clients, period):
    settings = Settings(workers=Workers(2, 32))
    trace = [
        Arrival(number * period * SECOND, 2 * SECOND)
        for number in range(10)
        for _ in range(clients)
    ]
    result = simulate(trace, settings)
    retired = [change.at_ns for change in result.changes if change.retired]

    assert all(at_ns > trace[-1].at_ns + 60 * SECOND for at_ns in retired)
    assert result.forks <= 30


def test_the_pool_shrinks_for_a_load_that_repeats_after_the_window():
    settings = Settings(workers=Workers(2, 32))
    trace = [*burst(40, 2.0), Arrival(100 * SECOND, SECOND)]

    assert next(c.at_ns for c in simulate(trace, settings).changes if c.retired) < 100 * SECOND


# -- one load


def test_the_pool_grows_for_a_burst_of_blocking_requests_at_once_and_shrinks_in_one_step():
    boot = 0.02
    settings = Settings(workers=Workers(2, 32))
    moments = play(burst(64, 2.0), settings, round(boot * 1e9))
    up = next(moment.at_ns for moment in moments if moment.tally.busy == 32)
    retired = [moment for moment in moments if moment.retired]
    quiet = next(m.at_ns for m in moments if m.tally.busy == 0 and m.at_ns > up)

    assert up <= (0.2 + boot) * SECOND
    assert [moment.retired for moment in retired] == [29]
    assert 0 <= retired[0].at_ns - quiet - 60 * SECOND <= DRAIN_NS
    assert retired[0].tally == Tally(idle=3)


def test_the_figures_of_a_small_load_match_a_calculation_by_hand():
    # One worker at most: the second client waits 1 s for the first, the third 0.5 s for the second.
    trace = [Arrival(0, 2 * SECOND), Arrival(SECOND, SECOND), Arrival(2_500 * MS, SECOND)]
    result = simulate(trace, Settings(workers=Workers(1, 1)))

    assert result.waits == [0.0, 0.5, 1.0]
    assert [result.percentile(percent) for percent in (0, 33, 34, 67, 100)] == [0, 0, 0.5, 1, 1]
    assert result.served_at == 4.0
    assert (result.mean_workers, result.mean_busy) == (1.0, 1.0)
    assert result.saturated == 1.5
    assert (result.forks, result.retirements) == (0, 0)
    assert max(sample.backlog for sample in result.samples) == 1
    assert max(sample.waited for sample in result.samples) == 1.0


def test_a_worker_is_ready_after_its_boot_time():
    settings = Settings(workers=Workers(1, 2), min_spare=0, grow_delay=0.0)
    result = simulate(burst(2, 9.0), settings, boot=0.25)

    assert result.waits == [0.0, 0.25]


@given(TRACES, pools())
def test_samples_show_every_size_and_the_extremes(trace, settings):
    moments = play(trace, settings, 10 * MS)
    result = simulate(trace, settings, boot=0.01)
    samples = result.samples
    sizes = {m.tally.total for m in moments}

    assert [s.at for s in samples] == sorted(s.at for s in samples)
    assert {s.workers for s in samples} == {settings.workers.min, *sizes}
    assert max(s.busy for s in samples) == max(m.tally.busy for m in moments)
    assert min(s.idle for s in samples) <= min(m.tally.idle for m in moments)
    assert max(s.backlog for s in samples) == max(m.backlog for m in moments)
    assert max(s.waited for s in samples) == result.waits[-1]
    assert (samples[-1].busy, samples[-1].backlog) == (0, 0)


def test_a_long_trace_gives_few_samples():
    trace = poisson(50, 0.05, 100, seed=1)

    assert len(simulate(trace, Settings(workers=Workers(4, 4))).samples) < 4000 < len(trace)


# -- traces


def test_a_trace_may_have_a_header_comments_and_spaces():
    text = "# a comment\n\nat_s, service_s\n 12.5 , 0.25 \n# another\n11.5,1e-3\n"

    assert parse(io.StringIO(text)) == [Arrival(0, MS), Arrival(SECOND, 250 * MS)]


@pytest.mark.parametrize(
    "line", ["1", "1,2,3", "one,2", "1,-1", "1,nan", "inf,1", "1,inf", "1;2", "at_s,service_s"]
)
def test_a_malformed_line_is_reported_with_its_number(line):
    with pytest.raises(SetupError, match=r"^line 4 must be at_s,service_s in seconds, not "):
        parse(["# comment\n", "\n", "0,1\n", line + "\n", "x\n"])


def test_a_trace_without_arrivals_is_refused():
    with pytest.raises(SetupError, match="no arrivals"):
        parse(["at_s,service_s\n"])


def test_random_arrivals_have_the_given_rate_and_mean():
    trace = poisson(100, 0.05, 100, seed=7)

    assert len(trace) == pytest.approx(10_000, rel=0.05)
    mean = sum(arrival.service_ns for arrival in trace) / len(trace)
    assert mean == pytest.approx(0.05 * SECOND, rel=0.05)
    assert trace == poisson(100, 0.05, 100, seed=7)
    assert trace != poisson(100, 0.05, 100, seed=8)


# -- the command

GUIDE = Path(__file__).parents[2] / "docs" / "sizing.md"
SHOWN = re.findall(
    r"^\$ linepool (simulate [^|\n]*)(?: \| grep \^(\w+))?\n((?:(?!\$|```).*\n)*)",
    GUIDE.read_text(encoding="utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize(("command", "kept", "shown"), SHOWN, ids=[shown[0] for shown in SHOWN])
def test_the_guide_shows_what_the_command_prints(command, kept, shown, capsys):
    assert main(command.split()) == 0
    lines = capsys.readouterr().out.splitlines()

    assert [line for line in lines if line.startswith(kept)] == shown.splitlines()


@pytest.fixture(autouse=True)
def _without_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no configuration file
    monkeypatch.delenv("LINEPOOL_WORKERS", raising=False)


def test_the_command_shows_the_figures_and_the_pool_over_time(tmp_path, capsys):
    (tmp_path / "load.csv").write_text("at_s,service_s\n0,2\n1,1\n2.5,1\n")

    assert main(["simulate", "load.csv", "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("settings   workers=1 min_spare=1 max_spare=3 ")
    assert lines[1] == "clients    3, the last one done after 4 s"
    assert lines[2] == "waited     50 % up to 500 ms, 90 % up to 1 s, 99 % up to 1 s, at most 1 s"
    assert lines[4] == "changes    0 forks, 0 retirements in 0 steps"
    assert lines[5] == "saturated  1.5 s at the maximum with connections waiting"
    assert lines[7].split() == ["from", "workers", "busy", "idle", "backlog", "waited"]
    assert lines[8].split() == ["0", "s", "1", "1", "0", "0", "0", "s"]


def test_equal_rows_are_shown_once(capsys):
    assert main(["simulate", "--burst", "64", "--service", "2", "--workers", "2:32"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[8:]]

    assert table == [
        ["0", "s", "2-32", "32", "0", "62", "2.11", "s"],
        ["5", "s", "32", "0", "32", "0", "0", "s"],
        ["60", "s", "3-32", "0", "3", "0", "0", "s"],
    ]


def test_the_command_prints_all_results_as_json(capsys):
    arguments = ["simulate", "--burst", "64", "--service", "2", "--workers", "2:32", "--json"]

    assert main(arguments) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"]["workers"] == "2:32"
    assert shown["workers"]["max"] == 32
    assert (shown["forks"], shown["retirements"]) == (30, 29)
    assert shown["changes"][-1]["why"] == "32 not needed for 60 s"
    assert shown["samples"][-1]["workers"] == 3


def test_settings_from_a_file_are_used(tmp_path, capsys):
    (tmp_path / "linepool.toml").write_text('workers = "3"\nmax_spare = 7\n')

    assert main(["simulate", "--burst", "1"]) == 0
    assert "workers=3 min_spare=1 max_spare=7 " in capsys.readouterr().out


def test_a_trace_can_be_read_from_standard_input(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("0,1\n0,1\n"))

    assert main(["simulate", "-"]) == 0
    assert "clients    2, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0,1\nnonsense\n", "load.csv: line 2 must be at_s,service_s in seconds, not 'nonsense'"),
        (b"", "load.csv: no arrivals"),
        (b"\xff\xfe0,1\n", "load.csv is not UTF-8 text"),
        (None, "cannot read load.csv: No such file or directory"),
    ],
)
def test_an_invalid_trace_is_refused_in_one_line(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "load.csv").write_bytes(content)

    assert main(["simulate", "load.csv"]) == 1
    assert capsys.readouterr().err == f"linepool: {message}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["load.csv", "--burst", "3"],
        ["--burst", "0"],
        ["--burst", "1.5"],
        ["--poisson", "0/s"],
        ["--poisson", "many"],
        ["--burst", "3", "--service", "nan"],
        ["--burst", "3", "--bind", "127.0.0.1:0"],
    ],
)
def test_a_usage_error_is_reported_in_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])

    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_invalid_setting_is_a_usage_error(capsys):
    assert main(["simulate", "--burst", "3", "--min-spare", "9"]) == 2
    assert "max_spare (3) must not be below min_spare (9)" in capsys.readouterr().err


def test_a_load_without_clients_is_an_error(capsys):
    assert main(["simulate", "--poisson", "0.001/s", "--seconds", "1"]) == 1
    assert capsys.readouterr().err == "linepool: no arrivals within 1 s\n"


def test_a_chart_is_written(tmp_path, capsys):
    assert main(["simulate", "--burst", "9", "--plot", "pool.png"]) == 0
    assert (tmp_path / "pool.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere/pool.png", "No such file or directory"), ("pool.nonsense", "is not supported")],
)
def test_a_chart_that_cannot_be_written_is_reported_in_one_line(capsys, path, message):
    assert main(["simulate", "--burst", "9", "--plot", path]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"linepool: cannot write {path}: ")
    assert message in shown
    assert shown.count("\n") == 1


def test_a_chart_without_matplotlib_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    assert main(["simulate", "--burst", "9", "--plot", "pool.png"]) == 1
    assert capsys.readouterr().err == (
        "linepool: --plot needs matplotlib; install it with: pip install 'linepool[plot]'\n"
    )
