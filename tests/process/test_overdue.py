"""Requests that take too long: first RequestTimeout, then the kill; and what is not overdue."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.sockets import socket_cookie
from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.connections import all_of
from tests.servers import ServerProcess, has_ended

TOO_LONG = "SERVER_ERROR the request took longer than 0.2 s"
ENDED = "SERVER_ERROR the request was ended: it took longer than 0.2 s"
LIMITS = ("--request-timeout", "0.2", "--kill-grace", "0.1", "--log-level", "debug")
TRIES = 4  # a worker may not have written its stack in time if the machine is busy


@pytest.fixture(scope="module")
def interrupting_server(
    tmp_path_factory: pytest.TempPathFactory, implementation: None
) -> Iterator[ServerProcess]:
    """Give a server that interrupts overdue requests and does not kill their workers in the test."""
    place = tmp_path_factory.mktemp("interrupting")
    options = ("--workers", "4", "--request-timeout", "0.2", "--kill-grace", "9")
    with ServerProcess(place, "stuck_in_python.py", *options) as server:
        yield server


@pytest.fixture(scope="module", params=["accept", "shared"])
def killing_server(
    tmp_path_factory: pytest.TempPathFactory, implementation: None, request: pytest.FixtureRequest
) -> Iterator[ServerProcess]:
    """Give a server that kills the worker of an overdue request after 0.1 s."""
    place = tmp_path_factory.mktemp("killing")
    options = ("--workers", "3", "--poison-deaths", "0", *LIMITS)
    with ServerProcess(place, "stuck_for_good.py", *options, scheme=request.param) as server:
        yield server


def counters(server: ServerProcess, *names: str) -> list[int]:
    """Return some of the server's counters."""
    state = server.status()
    return [state["counters"][name] for name in names]


def log_of_overdue(server: ServerProcess, peer: Peer) -> str:
    """Return what the log says of the overdue request of a client, down to the exception."""
    server.wait_for(f"peer={name_of(peer)} why=")
    begin = len(server.log) - 1
    server.wait_for("RequestTimeout: ")
    return "\n".join(server.log[begin:])


def account_of(server: ServerProcess, worker: str | int = "", client: str = "") -> tuple[str, str]:
    """Return the line of the log about the kill of a worker, and the stack below it.

    Args:
        server: The server.
        worker: The pid of the worker; or else
        client: the peer name of the client whose request it was serving.
    """
    killed = f" client={client} " if client else f"worker killed pid={worker} "
    if not any(killed in line for line in server.log):
        server.wait_for(killed)
    begin = next(number for number, line in enumerate(server.log) if killed in line)
    worker = re.findall(r" pid=(\d+) ", server.log[begin])[0]
    if not any(f"worker left pid={worker} " in line for line in server.log):
        server.wait_for(f"worker left pid={worker} ")
    stack = itertools.takewhile(lambda line: line.startswith("    "), server.log[begin + 1 :])
    return server.log[begin], "\n".join(stack)


def name_of(peer: Peer) -> str:
    """Return the peer name of a client."""
    return "{}:{}".format(*peer.socket.getsockname())


# -- the first step


@pytest.mark.parametrize(
    "way",
    ["asleep", "in_recv", "in_a_loop", "at_a_lock", "in_a_regex", "behind_except"],
)
def test_an_overdue_request_ends_with_an_error_in_its_place(
    interrupting_server: ServerProcess, way
):
    names = ("timeouts", "errors", "kills")
    timeouts, errors, kills = counters(interrupting_server, *names)
    with interrupting_server.connect() as peer:
        worker = peer.ask("PID")

        peer.send(f"ADD 1 1\nSTUCK_{way}\nADD 2 2\n".encode())

        assert [peer.line() for _ in range(3)] == ["2", TOO_LONG, "4"]
        assert peer.ask("PID") == worker
        text = log_of_overdue(interrupting_server, peer)
    assert f"request overdue command=STUCK_{way} " in text
    assert f"in stuck_{way}\n" in text
    assert counters(interrupting_server, *names) == [timeouts + 1, errors + 1, kills]


def test_an_overdue_request_does_not_affect_other_clients(interrupting_server: ServerProcess):
    with interrupting_server.connect() as stuck, interrupting_server.connect() as other:
        stuck.send(b"STUCK_IN_A_LOOP\n")
        answers = []
        while not select.select([stuck.socket], [], [], 0)[0]:
            answers.append(other.ask("ADD 2 3"))

        assert stuck.line() == TOO_LONG
        assert set(answers) == {"5"}
        assert answers


def test_a_handler_has_the_timeout_that_it_was_registered_with(interrupting_server: ServerProcess):
    with (
        interrupting_server.connect() as longer,
        interrupting_server.connect() as shorter,
        interrupting_server.connect() as none,
    ):
        longer.send(b"PATIENT 0.4\n")
        none.send(b"TIMELESS 0.4\n")
        shorter.send(b"HASTY 0.4\n")

        assert shorter.line() == "SERVER_ERROR the request took longer than 0.1 s"
        assert longer.line() == "awake"
        assert none.line() == "awake"


def test_a_handler_can_extend_its_deadline(interrupting_server: ServerProcess):
    with interrupting_server.connect() as granted, interrupting_server.connect() as used_up:
        granted.send(b"EXTENDED 5 0.4\n")
        used_up.send(b"EXTENDED 0.4 1000\n")

        assert granted.line() == "awake"
        assert used_up.line().startswith("SERVER_ERROR the request took longer than 0.4")
        # The extension was for that request only.
        assert granted.ask("NAP 1000") == TOO_LONG


@pytest.mark.scheme("shared", "accept")
def test_a_handler_can_set_its_own_deadline_where_none_is_configured(
    tmp_path: Path, launch: Launch
):
    (tmp_path / "app.py").write_text(
        "import linepool, time\n"
        "@linepool.handler\n"
        "def stuck(connection: linepool.Connection) -> None:\n"
        "    time.sleep(0.5)\n"  # until the master has no other reason to look
        "    connection.extend(0.4)\n"
        "    time.sleep(1000)\n"
    )
    server = launch("app.py", "--workers", "2", "--request-timeout", "0")
    with server.connect() as peer:
        peer.send(b"STUCK\n")

        assert peer.line().startswith("SERVER_ERROR the request took longer than ")


def test_an_app_that_uses_the_signal_for_stacks_leaves_it_to_its_workers(
    tmp_path: Path, launch: Launch
):
    (tmp_path / "app.py").write_text(
        "import faulthandler, linepool, signal, time\n"
        "faulthandler.register(signal.SIGUSR2)\n"
        "@linepool.handler\n"
        "def stuck() -> None:\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(1000)\n"
        "        except linepool.RequestTimeout:\n"
        "            continue\n"
    )
    server = launch("app.py", "--workers", "1", "--poison-deaths", "0", *LIMITS)
    stack = ""
    for _ in range(TRIES):
        (worker,) = server.until(lambda state: state["tally"]["idle"] == 1)["workers"]
        assert server.ask("STUCK") == ENDED
        _, stack = account_of(server, str(worker["pid"]))
        if stack:
            break
    assert "app.py" in stack
    assert "in stuck" in stack


def test_without_a_request_timeout_only_handlers_with_their_own_have_a_deadline(launch: Launch):
    server = launch("stuck_in_python.py", "--workers", "2", "--request-timeout", "0")
    with server.connect() as free, server.connect() as bound:
        free.send(b"NAP 0.4\n")
        bound.send(b"HASTY 1000\n")

        assert bound.line() == "SERVER_ERROR the request took longer than 0.1 s"
        assert free.line() == "awake"


def test_a_handler_can_clean_up_after_its_deadline(interrupting_server: ServerProcess):
    with interrupting_server.connect() as peer:
        assert [peer.ask("TIDY"), peer.line()] == ["tidied up", TOO_LONG]


def test_a_stream_that_hangs_ends_with_an_error_and_the_connection_stays_open(
    interrupting_server: ServerProcess,
):
    with interrupting_server.connect() as peer:
        peer.send(b"STUCK_IN_A_STREAM\nADD 1 1\n")

        assert [peer.line() for _ in range(4)] == ["one", "two", TOO_LONG, "2"]
        assert "in stuck_in_a_stream\n" in log_of_overdue(interrupting_server, peer)


def test_a_stream_that_continues_past_its_deadline_ends_with_an_error(launch: Launch):
    limits = ("--request-timeout", "0.2", "--kill-grace", "0.5")
    server = launch("stuck_in_python.py", "--workers", "4", *limits)
    last: list[tuple[str, str]] = []

    def read_a_flood() -> None:
        with server.connect() as peer:
            peer.send(b"FLOOD\nADD 2 3\n")
            while (line := peer.line()).startswith("x"):
                pass
            last.append((line, peer.line()))

    readers = [threading.Thread(target=read_a_flood) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert last == [(TOO_LONG, "5")] * 4
    server.until(lambda state: state["tally"]["idle"] == 4)
    assert counters(server, "timeouts", "kills") == [4, 0]


def test_middleware_counts_as_part_of_the_request(interrupting_server: ServerProcess):
    with interrupting_server.connect() as peer:
        assert peer.ask("HELD_UP") == TOO_LONG
        assert peer.ask("ADD 2 3") == "5"
        assert "in hold_up\n" in log_of_overdue(interrupting_server, peer)


def test_a_slow_greeting_is_not_charged_to_the_first_request(launch: Launch):
    limits = ("--request-timeout", "0.2", "--kill-grace", "1")
    server = launch("stuck_hooks.py", "--workers", "1", *limits, environment={"GREETING": "0.4"})
    with server.connect() as peer:
        assert peer.ask("NAP 1000") == TOO_LONG
        assert peer.ask("NAP 0") == "awake"


def test_an_abandoned_stream_does_not_use_up_the_time_of_the_next_client(launch: Launch):
    limits = ("--request-timeout", "0.2", "--kill-grace", "1")
    server = launch("stuck_in_python.py", "--workers", "1", *limits, bind=("unix:sock",))
    with server.connect() as gone:
        gone.send(b"STUCK_IN_A_STREAM\n")
        assert [gone.line(), gone.line()] == ["one", "two"]
    with server.connect() as peer:
        assert peer.ask("NAP 1000") == TOO_LONG
        assert peer.ask("NAP 0") == "awake"
    assert counters(server, "timeouts", "kills") == [2, 0]


# -- not overdue, only slow


@pytest.mark.scheme("accept")
def test_a_client_that_is_slow_to_send_is_not_overdue(launch: Launch):
    server = launch("stuck_in_python.py", "--workers", "2", *LIMITS)
    with server.connect() as slow, server.connect() as clock:
        worker = slow.ask("PID")
        for byte in b"ADD 2 3\n":
            slow.send(bytes([byte]))
            assert clock.ask("PATIENT 0.05") == "awake"

        assert slow.line() == "5"
        assert slow.ask("PID") == worker
    assert counters(server, "timeouts", "kills") == [0, 0]


@pytest.mark.scheme("accept", "shared")
@pytest.mark.parametrize("command", ["BIG 20000000", "STREAM 20 1000000"])
def test_a_client_that_is_slow_to_read_is_not_overdue(launch: Launch, command):
    limits = ("--request-timeout", "1", "--kill-grace", "0.1")  # a busy machine makes 20 MB in that
    server = launch("stuck_in_python.py", "--workers", "2", *limits)
    with server.connect() as slow, server.connect() as clock:
        slow.send(f"{command}\nPID\n".encode())
        for _ in range(4):
            assert clock.ask("PATIENT 0.3") == "awake"

        got = sum(len(slow.line()) for _ in range(1 if "BIG" in command else 20))

        assert got == 20_000_000
        behind = slow.line()  # the end of the stream, or the reply to PID, from any worker
        assert behind == "END" if "STREAM" in command else int(behind) in server.pids()
    assert counters(server, "timeouts", "kills") == [0, 0]


def test_a_slow_request_is_logged_once_with_its_stack_and_completes(launch: Launch, tmp_path):
    server = launch("stuck_in_python.py", "--workers", "1", "--slow-request", "0.1")
    commands = ["NAP_UNTIL", "TIMELESS_UNTIL"]
    with server.connect() as peer:
        for command in commands:
            path = tmp_path / command
            peer.send(f"{command} {path}\n".encode())
            server.wait_for("slow request")
            path.touch()
            assert peer.line() == "awake"
        assert peer.ask("ADD 2 3") == "5"
    server.stop()

    slow = [number for number, line in enumerate(server.log) if "slow request" in line]
    named = [re.sub(r".*command=(.*) ran_s=.*", r"\1", server.log[number]) for number in slow]
    assert named == commands
    for number in slow:
        assert "Current thread" in server.log[number + 1]
        assert "in nap_until" in server.log[number + 2]


@pytest.mark.scheme("accept", "shared")
def test_to_log_a_slow_request_does_not_interrupt_what_it_waits_in(launch: Launch, fifo):
    server = launch("waits_in_c.py", "--workers", "1", "--slow-request", "0.1")
    with server.connect() as peer:
        for command in ("WAIT", "HOLD"):
            peer.send(f"{command} 100000 {fifo.path}\n".encode())
            server.wait_for("slow request")
            fifo.write()
            assert peer.line() == "1 not interrupted"
            fifo.read()
        assert peer.ask("WAIT 10") == "0 not interrupted"
    server.stop()

    waiting, holding = [n for n, line in enumerate(server.log) if "slow request" in line]
    assert "command=WAIT " in server.log[waiting]
    assert server.log[waiting + 2].endswith("in wait")
    assert "command=HOLD " in server.log[holding]
    assert server.log[holding].endswith(
        " stack=none (C code keeps the interpreter, or the process is stopped)"
    )


# -- the second step


@pytest.mark.parametrize("way", ["behind_except", "in_c", "in_a_hash", "when_stopped", "and_deaf"])
@pytest.mark.linux("the client of a killed worker reads no error line")
def test_a_request_that_no_exception_ends_is_killed_and_its_client_gets_an_error(
    killing_server: ServerProcess, way
):
    timeouts, kills = counters(killing_server, "timeouts", "kills")
    deaf = way in ("when_stopped", "and_deaf")
    accounts: list[tuple[str, str]] = []
    for _ in range(TRIES):
        accounts = kill_two(killing_server, way)
        kills += 2
        assert counters(killing_server, "timeouts", "kills") == [timeouts, kills]
        if deaf or all(stack for _, stack in accounts):
            break
    for line, stack in accounts:
        assert "why='took longer than 0.2 s'" in line
        assert f" command=STUCK_{way.upper()} " in line
        ran_s = re.findall(r" ran_s=([\d.]+) limit_s=0\.2", line)
        assert float(*ran_s) >= 0.3
        if deaf:
            assert line.endswith(" stack=none (the process is stopped, or blocks the signal)")
        else:
            assert re.search(rf"in stuck_{way}$", stack, re.MULTILINE)


def kill_two(server: ServerProcess, way: str) -> list[tuple[str, str]]:
    """Have two requests of different clients killed; return what the log says of each kill."""
    with server.connect() as netcat, server.connect() as telnet:
        netcat.send(f"STUCK_{way}\n".encode())
        telnet.send(f"STUCK_{way}\r\n".encode())

        assert all_of(netcat) == ENDED.encode() + b"\n"
        assert all_of(telnet) == ENDED.encode() + b"\r\n"
        clients = [name_of(netcat), name_of(telnet)]
    state = server.until(lambda state: state["tally"]["idle"] == 3)
    accounts = [account_of(server, client=client) for client in clients]
    for line, _ in accounts:
        pid = int(re.findall(r" pid=(\d+) ", line)[0])
        assert pid not in [worker["pid"] for worker in state["workers"]]
    return accounts


@pytest.mark.linux("the client of a killed worker reads no error line")
def test_a_kill_does_not_affect_other_clients(killing_server: ServerProcess):
    with killing_server.connect() as stuck, killing_server.connect() as other:
        stuck.send(b"STUCK_IN_C\n")
        answers = []
        while not select.select([stuck.socket], [], [], 0)[0]:
            answers.append(other.ask("ADD 2 3"))

        assert all_of(stuck) == ENDED.encode() + b"\n"
        assert set(answers) == {"5"}
        assert other.ask("ADD 2 3") == "5"


@pytest.mark.linux("the client of a killed worker reads no error line")
def test_a_client_that_keeps_sending_reads_the_error_and_a_clean_end(
    killing_server: ServerProcess,
):
    with killing_server.connect() as peer:
        peer.send(b"STUCK_IN_C\n")
        while not select.select([peer.socket], [], [], 0)[0]:
            peer.send(b"ADD 1 1\n")
        peer.send(b"ADD 1 1\n")

        assert all_of(peer) == ENDED.encode() + b"\n"


@pytest.mark.linux("the client of a killed worker reads no error line")
def test_the_error_is_sent_after_replies_that_the_client_has_read(killing_server: ServerProcess):
    with killing_server.connect() as peer:
        assert peer.ask("ADD 2 3") == "5"
        peer.send(b"STUCK_IN_C\n")

        assert all_of(peer) == ENDED.encode() + b"\n"


def test_no_error_line_is_sent_in_place_of_missing_replies(killing_server: ServerProcess):
    with killing_server.connect() as peer:
        peer.send(b"ADD 1 1\nSTUCK_IN_C\n")

        # A batch may end after the first request, whose reply is then sent before the next one begins.
        assert all_of(peer) in (b"", b"2\n" + ENDED.encode() + b"\n")


def test_no_error_line_is_sent_after_the_beginning_of_a_reply(killing_server: ServerProcess):
    with killing_server.connect() as peer:
        peer.send(b"STUCK_IN_A_STREAM\n")

        assert all_of(peer) == b"one\n"


def test_the_client_after_an_abandoned_stream_gets_its_error(launch: Launch):
    server = launch("stuck_for_good.py", "--workers", "1", *LIMITS)
    with server.connect() as gone:
        gone.send(b"FLOOD\n")
        assert gone.line()
    with server.connect() as peer:
        peer.send(b"STUCK_IN_C\n")

        assert all_of(peer) == ENDED.encode() + b"\n"


def test_a_worker_whose_client_has_left_is_killed_too(killing_server: ServerProcess):
    (kills,) = counters(killing_server, "kills")
    with killing_server.connect() as peer:
        worker = peer.ask("PID")
        peer.send(b"STUCK_IN_C\n")

    line, stack = account_of(killing_server, worker)
    assert "command=STUCK_IN_C " in line
    assert "in stuck_in_c" in stack or not stack  # the machine is so busy that it came too late
    assert counters(killing_server, "kills") == [kills + 1]


def test_a_stuck_hook_is_killed_and_its_client_gets_an_error(launch: Launch):
    server = launch("stuck_hooks.py", "--workers", "1", *LIMITS, environment={"GREETING": "1000"})
    (worker,) = server.pids()
    with server.connect() as peer:
        assert all_of(peer).rstrip() == ENDED.encode()
    assert "in greet" in account_of(server, worker)[1]


@pytest.mark.parametrize("child", ["fork", "program"])
@pytest.mark.linux("the client of a killed worker reads no error line")
def test_processes_that_a_stuck_handler_has_started_are_killed_with_it(
    killing_server: ServerProcess, child
):
    with killing_server.connect() as peer:
        pidfd = os.pidfd_open(int(peer.ask(f"STUCK_WITH_A_{child}")))

        assert all_of(peer) == ENDED.encode() + b"\n"

    with open(pidfd, closefd=True):
        assert has_ended(pidfd)


@pytest.mark.linux("the client of a killed worker reads no error line")
def test_a_daemon_that_has_the_clients_socket_does_not_keep_the_connection_open(
    killing_server: ServerProcess,
):
    with killing_server.connect() as peer:
        daemon = os.pidfd_open(int(peer.ask("STUCK_WITH_A_DAEMON")))

        assert all_of(peer) == ENDED.encode() + b"\n"

    with open(daemon, closefd=True):
        assert not has_ended(daemon, 0)
        signal.pidfd_send_signal(daemon, signal.SIGKILL)


@pytest.mark.parametrize(
    ("way", "how"), [("abort", "signal=SIGABRT"), ("segv", "signal=SIGSEGV"), ("exit", "status=3")]
)
def test_a_handler_that_crashes_its_worker_is_named_and_its_connection_closed(
    killing_server: ServerProcess, way, how
):
    (crashes,) = counters(killing_server, "crashes")
    with killing_server.connect() as peer:
        worker = peer.ask("PID")
        peer.send(f"DIE {way}\n".encode())

        assert all_of(peer) == b""

    line = killing_server.wait_for("worker died")
    assert f"pid={worker} {how} command=DIE requests=" in line
    killing_server.until(lambda state: state["tally"]["idle"] == 3)
    assert counters(killing_server, "crashes") == [crashes + 1]


@pytest.mark.parametrize("way", ["abort", "segv", "exit"])
def test_processes_that_a_crashing_handler_has_started_are_killed_with_it(
    killing_server: ServerProcess, way
):
    with killing_server.connect() as peer:
        pidfd = os.pidfd_open(int(peer.ask(f"DIE_WITH_A_FORK {way}")))

        assert all_of(peer) == b""

    with open(pidfd, closefd=True):
        assert has_ended(pidfd)


def test_the_client_of_a_request_that_outlasts_a_stop_gets_an_error(launch: Launch):
    limits = ("--request-timeout", "0", "--graceful-timeout", "0.3")
    server = launch("stuck_for_good.py", "--workers", "1", *limits)
    with server.connect() as peer:
        peer.send(b"STUCK_IN_C\n")
        server.until(lambda state: state["workers"][0]["command"] == "STUCK_IN_C")
        peer.send(b"ADD 1 1\n")

        assert server.stop() == 0

        why = "it did not end before the server stopped"
        assert all_of(peer) == f"SERVER_ERROR the request was ended: {why}\n".encode()
    assert "in stuck_in_c" in server.text


def test_a_stop_does_not_kill_early_beside_a_worker_that_is_killed(tmp_path, launch: Launch):
    boot = tmp_path / "boot"
    environment = {"BOOT": str(boot)}
    options = ("--workers", "2", "--spawn-timeout", "1", "--graceful-timeout", "9")
    server = launch("stuck_boots.py", *options, environment=environment)
    first, second = server.pids()
    boot.touch()
    os.kill(first, signal.SIGKILL)
    never_up = server.wait_for("hangs in its boot").split()[0]
    boot.unlink()
    os.kill(second, signal.SIGKILL)
    server.until(lambda state: state["tally"]["idle"] and state["workers"][1]["pid"] != second)
    with server.connect() as peer:
        peer.send(b"NAP 1.3\n")
        server.until(lambda state: "NAP" in [worker["command"] for worker in state["workers"]])

        server.send(signal.SIGTERM)

        assert f"pid={never_up} why='was not ready in time'" in server.wait_for("worker killed")
        assert peer.line() == "awake"
    assert server.ended() == 0


# -- taking a socket from a process


def test_a_socket_is_taken_from_a_process_only_if_its_cookie_matches(tmp_path: Path):
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        file = stack.enter_context(open(tmp_path / "file", "wb"))
        numbers = [ours.fileno(), file.fileno()]
        program = stack.enter_context(subprocess.Popen(["sleep", "1000"], pass_fds=numbers))
        stack.callback(program.kill)
        process = stack.enter_context(contextlib.closing(ChildProcess(program.pid)))
        cookie = socket_cookie(ours)
        before = os.listdir("/proc/self/fd")

        taken = process.take_socket(ours.fileno(), cookie)
        assert taken is not None
        assert taken.getsockname() == ours.getsockname()
        taken.close()
        assert process.take_socket(ours.fileno(), cookie + 1) is None
        assert process.take_socket(file.fileno(), cookie) is None
        assert process.take_socket(999, cookie) is None
        program.kill()
        assert has_ended(process.pidfd)
        assert process.take_socket(ours.fileno(), cookie) is None

        assert os.listdir("/proc/self/fd") == before


# -- without the permission to take sockets


def test_without_the_permission_to_take_sockets_workers_are_killed_and_it_is_logged_once(
    other_users_directory: Path,
):
    # With a capability there is always the permission; otherwise only for dumpable processes (ptrace(2)).
    without = ("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace")
    with ServerProcess(
        other_users_directory,
        "stuck_for_good.py",
        *("--workers", "1", *LIMITS),
        bind=("unix:sock",),
        environment={"UNDUMPABLE": "1"},
        wrapper=without if os.getuid() == 0 else (),
    ) as server:
        kills, stack = 0, ""
        while not stack and kills < TRIES:
            with server.connect() as peer:
                worker = peer.ask("PID")
                peer.send(b"STUCK_IN_C\n")

                assert all_of(peer) == b""

            kills += 1
            line, stack = account_of(server, worker)
            assert " command=STUCK_IN_C " in line
            assert " client=- " in line
        assert "in stuck_in_c" in stack
        assert server.ask("ADD 2 3") == "5"
        said = [line for line in server.log if "pidfd_getfd is not permitted here" in line]
        assert len(said) == 1
        assert counters(server, "kills", "crashes") == [kills, 0]
