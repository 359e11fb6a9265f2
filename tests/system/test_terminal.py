"""People at a terminal: telnet, netcat, and the keys that stop a server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Iterator

import pexpect
import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import EXAMPLES, HANDLERS, TIMEOUT, Gate, ServerProcess

SUMS = EXAMPLES / "sums.py"


@contextlib.contextmanager
def terminal(*words: str, **options: str) -> Iterator[pexpect.spawn]:
    """Run a program in a terminal of its own."""
    child = pexpect.spawn(
        words[0], list(words[1:]), timeout=TIMEOUT, echo=False, env={**os.environ, **options}
    )
    child.delaybeforesend = None
    try:
        yield child
    finally:
        child.close(force=True)


def host_and_port(server: ServerProcess) -> tuple[str, str]:
    """Return the address of a server as two words."""
    return "127.0.0.1", str(server.port)


# -- sessions


def test_a_session_with_netcat(launch: Launch):
    server = launch(str(SUMS), "--workers", "1")
    with terminal("nc", *host_and_port(server)) as nc:
        for said, answered in [
            ("add 2 3", "5"),
            ("ADD 2 x", "CLIENT_ERROR b must be int, not 'x'. Usage: ADD a:int b:int"),
            ("ADD 2", "CLIENT_ERROR"),
            ("fro", "ERROR unknown command 'fro'. HELP lists the commands."),
            ("", None),
            ("DIVIDE 1 0", "CLIENT_ERROR b must not be 0"),
            ("mean 1 2 6", "3.0"),
        ]:
            nc.sendline(said)
            if answered is not None:
                nc.expect_exact(answered)
                nc.expect_exact("\r\n")
        nc.sendline("countdown 3")
        nc.expect_exact("3\r\n2\r\n1\r\nEND\r\n")
        nc.sendline("help")
        nc.expect(r"ADD a:int b:int +Add two whole numbers\.\r\n")
        nc.expect_exact("END\r\n")
        nc.sendline("help add")
        nc.expect_exact("ADD a:int b:int\r\n")
        nc.sendline("QUIT")
        nc.expect_exact("OK\r\n")
        nc.sendeof()  # this netcat runs until its user sends the end of the input
        nc.expect(pexpect.EOF)
        nc.wait()
        assert nc.exitstatus == 0


def test_a_session_with_telnet(launch: Launch):
    server = launch(str(SUMS), "--workers", "1")
    with terminal("telnet", *host_and_port(server)) as telnet:
        telnet.expect_exact("Escape character is '^]'.\r\n")
        telnet.sendline("ADD 2 3")
        telnet.expect_exact("5\r\n")
        telnet.sendline("ADD 2 x")
        telnet.expect_exact("CLIENT_ERROR b must be int, not 'x'. Usage: ADD a:int b:int\r\n")
        telnet.sendline("countdown 2")
        telnet.expect_exact("2\r\n1\r\nEND\r\n")
        telnet.sendline("QUIT")
        telnet.expect_exact("Connection closed by foreign host.")
        telnet.expect(pexpect.EOF)


def test_a_telnet_session_continues_after_telnet_commands(launch: Launch):
    server = launch(str(SUMS), "--workers", "1")
    with terminal("telnet", *host_and_port(server)) as telnet:
        telnet.expect_exact("Escape character is '^]'.\r\n")
        for command in ("send ayt", "send nop", "send brk"):
            telnet.sendcontrol("]")
            telnet.expect_exact("telnet> ")
            telnet.sendline(command)
            telnet.sendline("ADD 2 3")
            telnet.expect_exact("5\r\n")
        telnet.sendcontrol("]")
        telnet.expect_exact("telnet> ")
        telnet.sendline("quit")
        telnet.expect_exact("Connection closed.")

    assert server.ask("ADD 2 3") == "5"


def test_an_interrupt_key_in_telnet_does_no_harm(launch: Launch):
    server = launch(str(SUMS), "--workers", "1")
    with terminal("telnet", *host_and_port(server)) as telnet:
        telnet.expect_exact("Escape character is '^]'.\r\n")
        telnet.send("ADD 1 ")
        telnet.sendcontrol("c")
        telnet.sendline("ADD 2 3")
        telnet.expect_exact("5\r\n")


def test_people_can_share_a_server_with_programs(launch: Launch):
    server = launch(str(SUMS), "--workers", "3")
    where = host_and_port(server)
    with terminal("nc", *where) as nc, terminal("telnet", *where) as telnet:
        telnet.expect_exact("Escape character is '^]'.\r\n")
        for number in range(3):
            nc.sendline(f"ADD {number} 1")
            telnet.sendline(f"ADD {number} 2")
            assert server.ask(f"ADD {number} 3") == str(number + 3)
            nc.expect_exact(f"{number + 1}\r\n")
            telnet.expect_exact(f"{number + 2}\r\n")


def test_a_client_that_ends_its_side_gets_all_replies(launch: Launch):
    server = launch(str(SUMS), "--workers", "1")

    for said, answered in [
        (b"ADD 2 3\n", b"5\n"),
        (b"ADD 2 3\r\n", b"5\r\n"),
        (b"ADD 2 3\nADD 3 3\nQUIT\nADD 4 4\n", b"5\n6\nOK\n"),
        (b"COUNTDOWN 2\n\n\nADD 1 1\n", b"2\n1\nEND\n2\n"),
        (b"", b""),
        (b"ADD 2 3", b"CLIENT_ERROR the last line has no line ending; it was not run\r\n"),
        (b"ADD 1 1\nADD 2", b"2\nCLIENT_ERROR the last line has no line ending; it was not run\n"),
    ]:
        done = subprocess.run(
            ["nc", "-N", *host_and_port(server)],
            input=said,
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        )
        assert done.stdout == answered


def test_netcat_reaches_a_unix_socket_and_the_control_socket(launch: Launch, tmp_path):
    server = launch(str(SUMS), "--workers", "1", bind=("unix:s",))

    for path, said, answered in [
        (f"{tmp_path}/s", b"ADD 2 3\n", b"5\n"),
        (server.control, b"SCALE 2\nQUIT\n", b"workers 2\nOK\n"),
    ]:
        done = subprocess.run(
            ["nc", "-N", "-U", path], input=said, capture_output=True, timeout=TIMEOUT, check=True
        )
        assert done.stdout == answered


# -- the debugger


def test_a_breakpoint_in_a_handler_opens_the_debugger_in_the_server_s_terminal():
    app = str(HANDLERS / "odd_processes.py")
    options = ("--bind", "127.0.0.1:0", "--workers", "1", "--control", "off")
    limits = ("--request-timeout", "0.3", "--kill-grace", "0.1")
    with terminal(sys.executable, "-P", "-m", "linepool", "run", app, *options, *limits) as server:
        server.expect(r"listening on 127\.0\.0\.1:(\d+)\r\n")
        port = server.match.group(1).decode()
        server.expect_exact("ready: 1 worker\r\n")
        with Peer(f"127.0.0.1:{port}") as peer:
            for _ in range(2):
                peer.send(b"STOP_HERE 2 3\n")
                server.expect_exact("(Pdb) ")
                # However long somebody looks at it: nothing arrives within twice the deadline.
                assert server.expect_exact(["worker killed", pexpect.TIMEOUT], timeout=1) == 1
                server.sendline("p a * 100")
                server.expect_exact("200\r\n")
                server.expect_exact("(Pdb) ")
                server.sendline("c")
                assert peer.line() == "5"
        server.sendcontrol("c")  # the keyboard is the master's again
        server.expect_exact("stopping: now")
        server.expect(pexpect.EOF)
        server.wait()
    assert (server.exitstatus, server.signalstatus) == (0, None)


@contextlib.contextmanager
def in_foreground() -> Iterator[tuple[pexpect.spawn, Peer]]:
    """Serve in the foreground of a terminal; give the terminal and a connection."""
    options = ("--bind", "127.0.0.1:0", "--workers", "0")
    app = str(HANDLERS / "odd_processes.py")
    with terminal(sys.executable, "-P", "-m", "linepool", "run", app, *options) as server:
        server.expect(r"listening on 127\.0\.0\.1:(\d+)\r\n")
        port = server.match.group(1).decode()
        server.expect(r"ready: in the foreground pid=\d+\r\n")
        with Peer(f"127.0.0.1:{port}") as peer:
            yield server, peer


def interrupt_until_stopped(server: pexpect.spawn) -> None:
    """Press the interrupt key as a person would: again, if nothing happens.

    A signal that comes between Python's prompt and its select(2) is noticed with the next key.
    """
    for _ in range(8):
        server.sendcontrol("c")
        if server.expect_exact(["stopped", pexpect.TIMEOUT], timeout=5) == 0:
            server.expect(pexpect.EOF)
            return
    raise AssertionError("the interrupt key does not stop the server")


@pytest.mark.parametrize("command", ["STOP_HERE", "TRACE"], ids=["breakpoint", "set_trace"])
def test_in_the_foreground_a_handler_is_debugged_and_the_interrupt_key_stops(command):
    with in_foreground() as (server, peer):
        for _ in range(2):
            peer.send(f"{command} 2 3\n".encode())
            server.expect_exact("(Pdb) ")
            server.sendline("p a * 100")
            server.expect_exact("200\r\n")
            server.expect_exact("(Pdb) ")
            with Peer(":".join(map(str, peer.socket.getpeername()))) as other:
                other.send(b"STOP_HERE 4 5\nQUIT\n")  # it waits meanwhile
                server.sendline("c")
                assert peer.line() == "5"
                server.expect_exact("(Pdb) ")
                server.sendline("c")
                assert other.rest() == b"9\nOK\n"
        interrupt_until_stopped(server)
        server.wait()
    assert (server.exitstatus, server.signalstatus) == (0, None)


@pytest.mark.parametrize("prompt", [True, False])
def test_in_the_foreground_the_interrupt_key_ends_a_handler_and_a_prompt(prompt):
    with in_foreground() as (server, peer):
        if prompt:
            peer.send(b"STOP_HERE 2 3\n")
            server.expect_exact("(Pdb) ")
        else:
            assert peer.ask("ADD 2 3") == "5"
        interrupt_until_stopped(server)
        server.wait()
    assert (server.exitstatus, server.signalstatus) == (0, None)


# -- the keys that stop a server


@pytest.mark.parametrize(
    ("keys", "busy"), [("c", False), ("c", True), ("cc", True), ("\\", False), ("\\", True)]
)
def test_a_stop_key_in_the_terminal_stops_the_server_without_a_traceback(
    tmp_path, gate: Gate, keys, busy
):
    options = ("--bind", "127.0.0.1:0", "--workers", "2", "--control", "off")
    workshop = str(HANDLERS / "workshop.py")
    with terminal(
        sys.executable, "-P", "-m", "linepool", "run", workshop, *options, GATE=str(gate.path)
    ) as server:
        server.expect(r"listening on 127\.0\.0\.1:(\d+)\r\n")
        port = server.match.group(1).decode()
        server.expect_exact("ready: 2 workers\r\n")
        with Peer(f"127.0.0.1:{port}") as peer:
            server.setwinsize(
                50, 132
            )  # the kernel sends WINCH, which has another meaning elsewhere
            assert peer.ask("ADD 2 3") == "5"
            if busy:
                peer.send(b"HOLD x\n")
                gate.wait()

            for key in keys:
                server.sendcontrol(key)

            server.expect(pexpect.EOF)
            said = server.before.decode()
            server.wait()
            assert peer.line() != "x"
    assert (server.exitstatus, server.signalstatus) == (0, None)
    assert "stopping: now" in said
    assert "draining" not in said
    assert "Traceback" not in said


def test_a_terminal_that_is_closed_stops_the_server(tmp_path):
    options = ("--bind", f"unix:{tmp_path}/s", "--workers", "1", "--control", "off")
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "linepool", "run", str(SUMS), *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
    ) as server:
        os.close(theirs)
        said = b""
        while b"ready: 1 worker" not in said:
            said += os.read(ours, 1000)

        os.close(ours)

        assert server.wait(TIMEOUT) == 0
    assert not (tmp_path / "s").exists()


# -- ways to start a server


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("-m", "linepool", "run"),
        ("-c", "import sys, linepool.cli; sys.exit(linepool.cli.main(['run', *sys.argv[1:]]))"),
    ],
    ids=["the script itself", "python -m linepool", "linepool"],
)
def test_a_script_is_served_however_it_is_started(launch: Launch, command):
    server = launch(str(SUMS), "--workers", "2", command=command)

    assert server.ask("ADD 2 3") == "5"
    assert server.status()["name"] == "sums"
    assert server.stop() == 0


def test_a_script_that_cannot_be_served_prints_one_line_too(tmp_path):
    for words, status, text in [
        (["--workers"], 2, "--workers"),
        (["--workers", "0:4"], 2, "workers must be"),
        (["--bind", "192.0.2.1:0"], 1, "cannot listen on 192.0.2.1:0"),
    ]:
        done = subprocess.run(
            [sys.executable, str(SUMS), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == status
        assert len(done.stderr.splitlines()) == 1
        assert text in done.stderr


def test_an_app_is_found_by_module_and_name(launch: Launch, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "stock.py").write_text(
        "import linepool\n"
        "app = linepool.App()\n"
        "@app.handler\n"
        "def count(item: str) -> int:\n"
        "    return len(item)\n"
    )

    server = launch("shop.stock:app", "--workers", "1")

    assert server.ask("COUNT apple") == "5"
    assert server.status()["name"] == "stock"
