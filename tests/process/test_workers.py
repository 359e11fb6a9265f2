"""Workers: how the master replaces them, their boots, what they inherit, hooks and descriptors."""

from __future__ import annotations

import datetime
import itertools
import os
import re
import resource
import select
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.process.booting import launch_booting
from tests.process.connections import open_files, reset_on_close
from tests.servers import Gate, Load, children_of, freeze, has_ended, library_files

RESET = repr(ConnectionResetError(104, "Connection reset by peer"))

# -- death and replacement


def test_a_killed_worker_is_noticed_and_replaced_at_once(launch: Launch):
    server = launch("workshop.py", "--workers", "3")
    victim = server.pids()[1]

    os.kill(victim, signal.SIGKILL)
    line = server.wait_for("worker died")
    state = server.until(lambda state: state["tally"]["idle"] == 3)

    assert f"pid={victim} signal=SIGKILL" in line
    assert victim not in [worker["pid"] for worker in state["workers"]]
    assert (state["counters"]["crashes"], state["counters"]["spawned"]) == (1, 4)


def test_the_log_names_the_command_that_killed_its_worker(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    with server.connect() as peer:
        assert peer.ask("ADD 2 3") == "5"

        assert peer.ask("DIE 11") == ""

    assert "signal=SIGSEGV command=DIE requests=1" in server.wait_for("worker died")


@pytest.mark.scheme("accept")
def test_a_death_affects_only_the_clients_of_that_worker(launch: Launch):
    server = launch("workshop.py", "--workers", "2")
    with server.connect() as other, server.connect() as dying:
        survivor = other.ask("PID")

        assert dying.ask("DIE") == ""

        assert other.ask("PID") == survivor
        assert server.ask("ADD 2 3") == "5"


def test_a_worker_that_exits_by_itself_is_replaced(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    pids = server.pids()

    for status in (0, 7):
        assert server.ask(f"LEAVE {status}") == ""
        server.until(lambda state: state["tally"]["idle"] == 1)
        pids += server.pids()

    assert len(set(pids)) == 3


def test_many_deaths_at_once_leave_no_zombie_and_no_descriptor(launch: Launch):
    server = launch("workshop.py", "--workers", "20")
    master = server.process.pid
    descriptors = _kinds(master)

    for victim in server.pids():
        os.kill(victim, signal.SIGKILL)
    state = server.until(
        lambda state: state["counters"]["crashes"] == 20 and state["tally"]["idle"] == 20
    )

    pids = {worker["pid"] for worker in state["workers"]}
    assert len(set(children_of(master)) - pids) == 2  # loader and parker
    server.until(lambda _: _kinds(master) == descriptors)


@pytest.mark.both
def test_kills_under_load_lose_only_in_flight_requests(launch: Launch):
    server = launch("workshop.py", "--workers", "4")
    load = Load(server, clients=4)
    try:
        for killed in range(1, 21):
            served = load.served
            state = server.until(lambda state: len(state["workers"]) == 4)
            os.kill(state["workers"][killed % 4]["pid"], signal.SIGKILL)
            server.until(lambda state: state["counters"]["crashes"] == killed)  # noqa: B023
            server.until(lambda _: load.served > served + 5)  # noqa: B023
    finally:
        load.join()

    assert len(load.failures) <= 20
    # Clients without a reply read the end of the connection, never a wrong reply.
    assert {got for _, got in load.failures} <= {"", RESET}
    server.until(lambda state: state["tally"]["idle"] == 4)
    assert server.stop() == 0


def test_term_makes_one_worker_exit_gracefully(launch: Launch):
    server = launch("workshop.py", "--workers", "2")
    leaving = server.pids()[0]

    os.kill(leaving, signal.SIGTERM)
    server.until_gone(leaving)

    state = server.until(lambda state: state["tally"]["idle"] == 2)
    assert state["counters"]["crashes"] == 0


def test_signals_for_the_master_do_not_stop_a_worker(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    with server.connect() as peer:
        worker = int(peer.ask("PID"))

        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            os.kill(worker, number)
            assert int(peer.ask("PID")) == worker

    assert server.pids() == [worker]


# -- boots


@pytest.mark.parametrize(
    ("how", "workers"), [("raise", "1"), ("raise", "4"), ("exit", "2:4"), ("kill", "4")]
)
def test_the_server_gives_up_when_the_whole_first_generation_fails(
    tmp_path, launch: Launch, how, workers
):
    server = launch_booting(launch, tmp_path, "--workers", workers, how=how)

    assert server.ended() == 1
    assert "no worker came up; giving up" in server.text
    assert "ready:" not in server.text


def test_the_server_gives_up_when_no_worker_is_ready_in_time(tmp_path, launch: Launch):
    options = ("--workers", "2", "--spawn-timeout", "0.2")
    server = launch_booting(launch, tmp_path, *options, how="wait")

    assert server.ended() == 1
    assert "no worker came up; giving up" in server.text


def test_failed_boots_back_off_and_the_server_recovers(tmp_path, launch: Launch):
    options = ("--workers", "2", "--respawn-backoff", "0.05")
    server = launch_booting(launch, tmp_path, *options, how="", ready=True)
    boot = tmp_path / "boot"

    boot.write_text("exit")
    os.kill(server.pids()[0], signal.SIGKILL)
    server.wait_for("signal=SIGKILL")
    moments = [_moment(server.wait_for("status=3")) for _ in range(5)]
    assert server.ask("ADD 2 3") == "5"  # by the other worker
    boot.write_text("")
    server.until(lambda state: state["tally"]["idle"] == 2)

    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert [gap >= 0.05 * 1.5**failures for failures, gap in enumerate(gaps)] == [True] * 4
    assert gaps[-1] < 1


def test_the_master_sleeps_while_a_failed_boot_backs_off_and_a_stop_waits(tmp_path, launch: Launch):
    options = ("--workers", "2", "--respawn-backoff", "0.4")
    server = launch_booting(launch, tmp_path, *options, how="", ready=True)
    (tmp_path / "boot").write_text("wait")
    first, second = server.pids()
    os.kill(first, signal.SIGKILL)
    state = server.until(lambda state: state["tally"]["starting"] == len(state["workers"]) - 1 == 1)
    starting = next(one["pid"] for one in state["workers"] if one["pid"] != second)
    os.kill(starting, signal.SIGKILL)
    server.wait_for(f"worker died pid={starting}")
    # The worker that is left does not run, so the stop has to wait for it.
    freeze(second)
    server.send(signal.SIGTERM)
    server.wait_for("stopping")

    before, began = _cpu_ticks(server.process.pid), time.monotonic()
    assert not has_ended(server.watch()[second], 0.8)
    spent = _cpu_ticks(server.process.pid) - before
    passed = (time.monotonic() - began) * os.sysconf("SC_CLK_TCK")

    os.kill(second, signal.SIGCONT)
    assert spent <= passed / 2  # it would be all, had it not slept
    assert server.ended() == 0


def _ignore_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})


@pytest.mark.parametrize("setting", [_ignore_children, _block_signals])
def test_inherited_signal_settings_do_not_matter(launch: Launch, setting):
    server = launch("workshop.py", "--workers", "2", preexec_fn=setting)

    os.kill(server.pids()[0], signal.SIGKILL)
    server.until(lambda state: state["counters"]["crashes"] == 1 and state["tally"]["idle"] == 2)

    assert server.stop() == 0
    assert "Traceback" not in server.text


def test_a_default_socket_timeout_applies_to_the_sockets_of_the_app_only(tmp_path, launch: Launch):
    (tmp_path / "app.py").write_text(
        "import linepool, socket\n"
        "socket.setdefaulttimeout(0.2)\n"
        "@linepool.handler\n"
        "def default() -> float:\n"
        "    return socket.getdefaulttimeout()\n"
    )
    server = launch("app.py", "--workers", "2")
    with server.connect() as peer, server.connect() as other:
        assert peer.ask("DEFAULT") == "0.2"
        assert not select.select([peer.socket], [], [], 0.6)[0]
        assert peer.ask("DEFAULT") == "0.2"
        assert other.ask("DEFAULT") == "0.2"
        server.order("SCALE 1")
        server.until(lambda state: state["tally"]["total"] == 1)
    assert server.stop() == 0
    assert "Traceback" not in server.text


@pytest.mark.both
def test_a_worker_survives_whatever_a_handler_raises(tmp_path, launch: Launch):
    (tmp_path / "app.py").write_text(
        "import asyncio, builtins, linepool, os\n"
        "@linepool.handler\n"
        "def fail(kind: str) -> None:\n"
        "    raise getattr(builtins, kind, asyncio.CancelledError)('x')\n"
        "@linepool.handler\n"
        "def pid() -> int:\n"
        "    return os.getpid()\n"
    )
    server = launch("app.py", "--workers", "1")
    with server.connect() as peer:
        worker = peer.ask("PID")

        for kind in (
            "ValueError",
            "StopIteration",
            "BrokenPipeError",
            "MemoryError",
            "RecursionError",
            "SystemExit",
            "CancelledError",
            "KeyboardInterrupt",
        ):
            assert peer.ask(f"FAIL {kind}").startswith("SERVER_ERROR internal error, id "), kind

        assert peer.ask("PID") == worker


@pytest.mark.parametrize("limit", range(40, 44))
def test_a_lack_of_descriptors_does_not_end_the_master(launch: Launch, limit):
    limit += library_files()

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    server = launch("workshop.py", "--workers", "1", preexec_fn=few_descriptors)

    server.order("SCALE 20")
    server.wait_for("cannot fork")
    server.order("SCALE 1")
    server.until(lambda state: state["tally"]["total"] == 1)

    assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
    assert "Traceback" not in server.text


# -- apps, resources and hooks


def test_the_app_is_loaded_once_and_each_worker_opens_and_closes_its_resources(
    tmp_path, launch: Launch
):
    journal = tmp_path / "journal"
    server = launch("hooks.py", "--workers", "3", environment={"JOURNAL": str(journal)})
    workers = server.pids()
    with server.connect() as peer:
        hello = peer.line()
        identity, address, listener, opened_by = peer.ask("WHO").split()
        assert hello == f"hello {identity}"
        assert address == "{}:{}".format(*peer.socket.getsockname())
        assert listener == server.addresses[0]
        assert int(opened_by) in workers

    loader = server.status()["processes"]["loader"]
    assert server.stop() == 0

    lines = journal.read_text().splitlines()
    assert lines[:2] == [f"{loader} loaded", f"{loader} start"]
    for worker in workers:
        events = [line.partition(" ")[2] for line in lines if line.startswith(f"{worker} ")]
        events = [event for event in events if "connect" not in event]
        assert events == ["opened", "worker-start True", "worker-exit True", "closed"]
    assert len(lines) == 2 + 4 * 3 + 2


@pytest.mark.both
def test_on_disconnect_runs_once_however_a_connection_ends(tmp_path, launch: Launch):
    journal = tmp_path / "journal"
    options = ("--workers", "1", "--idle-timeout", "0.2", "--read-timeout", "0.2")
    server = launch("hooks.py", *options, environment={"JOURNAL": str(journal)})

    for script in (
        b"QUIT\n",
        b"HANG_UP\n",
        b"",
        b"half a line",
        b"x" * 100_000,
        b"GET / HTTP/1.1\n",
    ):
        with server.connect() as peer:
            peer.send(script)
            peer.rest()
    with server.connect() as silent:
        assert silent.line()
        assert silent.line() == ""
    with server.connect() as slow:
        slow.send(b"W")
        assert slow.line()
        assert slow.line().startswith("CLIENT_ERROR")
        assert slow.line() == ""
    with server.connect() as reset:
        assert reset.line()
        reset_on_close(reset)
    (tmp_path / "journal.full").touch()
    with server.connect() as refused:
        assert refused.line() == "CLIENT_ERROR no room"
        assert refused.line() == ""
    (tmp_path / "journal.full").unlink()
    with server.connect() as stopped:
        assert stopped.line()
        assert server.stop() == 0
        assert stopped.line() == ""

    words = [line.split() for line in journal.read_text().splitlines()]
    connected = [line[2] for line in words if line[1] == "connect"]
    assert len(connected) == 11
    assert [line[2] for line in words if line[1] == "disconnect"] == connected


def test_on_disconnect_and_the_exit_hooks_run_when_the_server_stops_at_once(
    tmp_path, launch: Launch
):
    journal = tmp_path / "journal"
    server = launch("hooks.py", "--workers", "1", environment={"JOURNAL": str(journal)})
    with server.connect() as peer:
        assert peer.line()

        server.send(signal.SIGINT)

        assert server.ended() == 0
        assert peer.line() == ""
    events = [line.split()[1] for line in journal.read_text().splitlines()]
    assert events[-4:] == ["connect", "disconnect", "worker-exit", "closed"]


def test_the_garbage_collector_ignores_what_was_loaded_before_the_fork(launch: Launch):
    server = launch("workshop.py", "--workers", "1")

    assert int(server.ask("FROZEN")) > 10_000


# -- descriptors


@pytest.mark.scheme("accept")
@pytest.mark.parametrize("listeners", [1, 2])
@pytest.mark.linux("they are of other kinds")
def test_a_worker_holds_only_its_own_descriptors(launch: Launch, gate: Gate, listeners):
    bind = ("127.0.0.1:0", "unix:sock")[:listeners]
    server = launch("workshop.py", "--workers", "4", bind=bind)
    with server.connect() as busy, server.connect() as dying, server.connect() as peer:
        first = peer.ask_lines("DESCRIPTORS")
        busy.send(b"HOLD x\n")
        gate.wait()
        with server.connect() as idle:
            assert idle.ask("ADD 2 3") == "5"
            before = server.pids()
            assert dying.ask("DIE") == ""
            server.until(lambda state: state["tally"]["idle"] == 1)
            # The other three have a client, so the next one goes to the newest worker.
            with server.connect() as newcomer:
                assert int(newcomer.ask("PID")) not in before
                later = newcomer.ask_lines("DESCRIPTORS")

    for lines in (first, later):
        kinds = [re.sub(r"\[?\d+\]?$", "", line.partition(" ")[2]) for line in lines]
        assert kinds.count("socket:") == listeners + 2  # listeners, channel, client
        assert kinds.count("pipe:") == 2  # stderr, status
        assert sum("pidfd" in kind for kind in kinds) == 1  # the master's
        assert sum("eventpoll" in kind for kind in kinds) == (listeners > 1)
        assert len(kinds) <= 16 + library_files()
    assert sorted(map(_kind, first)) == sorted(map(_kind, later))


@pytest.mark.parametrize("given", [False, True])
def test_a_program_that_a_handler_starts_inherits_none_of_our_descriptors(launch: Launch, given):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        bind = (f"fd://{fd}" if given else "127.0.0.1:0",)
        server = launch("workshop.py", "--workers", "2", bind=bind, pass_fds=[fd] if given else [])

        with server.connect() as peer:
            inherited = peer.ask_lines("INHERITED")

    # The last one is the directory that ls itself reads.
    assert [line.split()[0] for line in inherited] == ["0", "1", "2", "3"]
    assert "socket:" not in "".join(inherited)


def _kind(line: str) -> str:
    return re.sub(r"\d+", "#", line.partition(" ")[2])


def _kinds(pid: int) -> list[str]:
    """Return what the descriptors of a process are, without their numbers."""
    return sorted(re.sub(r"\d+", "#", target) for target in open_files(pid))


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _moment(line: str) -> float:
    return datetime.datetime.fromisoformat(line.split(maxsplit=1)[0]).timestamp()
