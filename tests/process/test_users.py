"""Servers that root starts and another user runs; what they need before the app is loaded."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.operate import remote
from tests.servers import ENVIRONMENT, HANDLERS, ROOT, TIMEOUT, ServerProcess, children_of

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
NOBODY = pwd.getpwnam("nobody")
_PATH = f"{ROOT}:{sysconfig.get_path('purelib')}"


@pytest.fixture(scope="module")
def python() -> str:
    """Give an interpreter that the user nobody can run with linepool."""
    for found in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(
                [
                    found,
                    "-P",
                    "-c",
                    f"import attrs, linepool; open({str(HANDLERS / 'identity.py')!r})",
                ],
                env={**ENVIRONMENT, "PYTHONPATH": _PATH},
                user=NOBODY.pw_uid,
                group=NOBODY.pw_gid,
                extra_groups=[],
                cwd="/",
                timeout=TIMEOUT,
                check=True,
                capture_output=True,
            )
            return found
    pytest.skip("the user nobody can run no Python with linepool")


@pytest.fixture
def everyones_directory() -> Iterator[Path]:
    """Give a directory of root's that all users can read."""
    with tempfile.TemporaryDirectory(prefix="linepool-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def low_port() -> int:
    """Return a free port that only root can listen on."""
    for port in range(1023, 600, -1):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no low port is free")


def state(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (x.partition(":") for x in lines)}


def until_gone(server: ServerProcess, pids: set[int]) -> None:
    """Wait until the master has none of these children."""
    server.until(lambda _: not pids & set(children_of(server.process.pid)))


def core_limit(pid: int) -> str:
    """Return the limit of a process's core dumps."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[4] for line in lines if line.startswith("Max core file size"))


def named(master: int) -> dict[tuple[str, str], int]:
    """Return the pids of the master's children by their titles, as far as they have them."""
    found = {title_of(pid): pid for pid in children_of(master)}
    return {
        title: pid
        for title, pid in found.items()
        if "master" not in title[0] and title[0].startswith("linepool: ")
    }


def title_of(pid: int) -> tuple[str, str]:
    """Return the arguments and the short name of a process, as the kernel shows them."""
    arguments = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")
    return arguments, Path(f"/proc/{pid}/comm").read_text().strip()


@as_root
def test_root_opens_what_only_root_can_and_nobody_runs_the_app(python, everyones_directory):
    directory = everyones_directory
    (directory / "inner").mkdir()
    port = low_port()
    options = ["--user", "nobody", "--chdir", "inner", "--umask", "027", "--max-core-mb", "0"]
    options += ["--pid-file", "../server.pid", "--log-file", "../server.log", "--workers", "1"]
    options += ["--request-timeout", "0.1", "--kill-grace", "0.1"]
    with ServerProcess(
        directory,
        "identity.py",
        *options,
        bind=(f"127.0.0.1:{port}", "unix:../server.sock"),
        python=python,
        environment={"PYTHONPATH": _PATH},
    ) as server:
        master = server.process.pid
        uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
        log = directory / "server.log"

        assert "handlers run as root" not in log.read_text()
        assert (directory / "server.pid").read_text() == f"{master}\n"
        assert state(master)["Uid"] == "0 0 0 0"
        for path in (directory / "server.sock", log):
            assert (path.stat().st_uid, path.stat().st_gid) == (uid, gid)
        assert (directory / "server.sock").stat().st_mode & 0o777 == 0o600
        control = Path(server.control).stat()
        assert (control.st_uid, control.st_mode & 0o777) == (0, 0o600)
        for order in ("RELOAD", "UPGRADE", "STOP"):
            server.until(lambda _: len(named(master)) == 3)
            for pid in named(master).values():
                found = state(pid)
                assert found["Uid"] == " ".join([str(uid)] * 4)
                assert found["Gid"] == " ".join([str(gid)] * 4)
                assert found["Groups"] == str(gid)
                assert (found["NoNewPrivs"], found["CapEff"]) == ("1", "0" * 16)
                assert core_limit(pid) == "0"
            with server.connect() as peer:
                assert peer.ask("LOADED_BY") == str(uid)
                assert peer.ask("BECOME_ROOT") == "refused"
                assert peer.ask("PLACE") == f"{directory}/inner 027 {NOBODY.pw_dir} nobody"
                peer.send(b"HANG\n")
                assert peer.rest() == (
                    b"SERVER_ERROR the request was ended: it took longer than 0.1 s\n"
                )
            assert (directory / "server.pid").read_text() == f"{master}\n"
            assert title_of(master) == ("linepool: master identity", "linepool master")
            server.until(lambda state: state["tally"]["idle"])
            before = {pid for title, pid in named(master).items() if "parker" not in title[0]}
            assert "cannot" not in server.order(order)
            if order != "STOP":
                until_gone(server, before)
        assert server.ended() == 0
        assert "worker killed" in log.read_text()
    assert sorted(path.name for path in directory.iterdir()) == ["inner", "server.log"]


_SCRIPT = """
import os
import linepool

loaded_by = os.getuid()

@linepool.handler
def users() -> str:
    return f"{loaded_by} {os.getuid()}"

linepool.run()
"""


@as_root
def test_the_file_of_incidents_is_roots_and_workers_cannot_reach_it(python, everyones_directory):
    with ServerProcess(
        everyones_directory,
        "identity.py",
        *("--user", "nobody", "--workers", "1", "--incidents", "incidents"),
        python=python,
        environment={"PYTHONPATH": _PATH},
    ) as server:
        (worker,) = server.pids()
        os.kill(worker, signal.SIGSEGV)
        server.until_gone(worker)

        (event,) = remote.events(server.control)
        found = (everyones_directory / "incidents").stat()

    assert event["signal"] == "SIGSEGV"
    assert event["stack"]
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o600)


@as_root
def test_a_script_is_told_that_it_has_run_as_root_before_it_serves_as_another_user(
    python, everyones_directory
):
    (everyones_directory / "script.py").write_text(_SCRIPT)
    with ServerProcess(
        everyones_directory,
        "--user=nobody",
        command=("script.py",),
        python=python,
        environment={"PYTHONPATH": _PATH},
    ) as server:
        assert server.ask("USERS") == f"0 {NOBODY.pw_uid}"
        warning = "the script has run as root so far: 'linepool run' loads it as nobody"
        assert server.text.count(warning) == 1
        assert server.stop() == 0


def test_processes_have_titles_and_a_server_of_root_says_so(launch):
    server = launch("workshop.py", "--workers", "1")
    master = server.process.pid

    assert server.text.count("handlers run as root: give --user NAME") == (os.getuid() == 0)
    assert title_of(master) == ("linepool: master workshop", "linepool master")
    server.until(lambda _: len(named(master)) == 3)
    assert sorted(named(master)) == [
        ("linepool: loader workshop g1", "linepool loader"),
        ("linepool: parker workshop", "linepool parker"),
        ("linepool: worker 0 workshop g1", "linepool worker"),
    ]
    assert state(master)["NoNewPrivs"] == "0"
    assert server.stop() == 0


def refused(directory: Path, *options: str, target: str = "identity.py") -> tuple[int, str]:
    """Return exit status and message of a server that does not start."""
    with ServerProcess(directory, target, *options, ready=False) as server:
        status = server.ended()
        return status, server.text.removeprefix("linepool: ")


def test_what_cannot_be_put_into_effect_is_one_line(tmp_path):
    (tmp_path / "link").symlink_to("victim")

    assert refused(tmp_path, "--user", "nosuchuser") == (2, "the user 'nosuchuser' does not exist")
    assert refused(tmp_path, "--group", "daemon") == (
        2,
        "group is given (daemon), and user is not: give both",
    )
    assert refused(tmp_path, "--chdir", "nowhere") == (
        2,
        "chdir: cannot enter nowhere: No such file or directory",
    )
    assert refused(tmp_path, "--pid-file", "link") == (
        1,
        "pid_file: cannot write link: it is a symbolic link, which is not followed",
    )


def test_two_servers_cannot_have_one_pid_file(launch, tmp_path):
    server = launch("workshop.py", "--pid-file", "pid", "--chdir", str(tmp_path))

    assert refused(tmp_path, "--pid-file", "pid") == (
        1,
        f"pid_file: pid is in use by a server (pid {server.process.pid})",
    )
    server.process.kill()
    server.ended()
    with launch("workshop.py", "--pid-file", "pid") as second:
        assert (tmp_path / "pid").read_text() == f"{second.process.pid}\n"
        assert second.stop() == 0
    assert not (tmp_path / "pid").exists()


@as_root
def test_a_user_who_cannot_read_the_target_or_python_is_told_so(
    python, tmp_path, everyones_directory
):
    (tmp_path / "sums.py").write_text("")  # the directory is root's alone
    environment = {**ENVIRONMENT, "PYTHONPATH": _PATH}

    def check(python: str, target: Path) -> str:
        command = [python, "-P", "-m", "linepool", "check", str(target), "--user", "nobody"]
        result = subprocess.run(
            command,
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert result.returncode == 1
        return result.stderr

    assert check(python, tmp_path / "sums.py") == (
        f"linepool: file {tmp_path}/sums.py cannot be read by the user nobody: Permission denied\n"
    )
    if python != sys.executable:
        assert check(sys.executable, HANDLERS / "identity.py") == (
            f"linepool: the user nobody cannot read {os.__file__}: install Python, linepool and what the app"
            " needs where that user can read them\n"
        )
