"""Which directories and servers the command line trusts, and where a server puts its control socket."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from linepool import SetupError
from linepool.operate import places, remote
from tests.conftest import OTHER_USER

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory that is the only place for control sockets: its ``linepool``."""
    monkeypatch.setattr(places, "_directories", lambda *_: [str(tmp_path / "linepool")])
    return tmp_path


@contextlib.contextmanager
def listening(path: Path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield sock


def test_a_server_makes_a_directory_for_itself(runtime):
    path = places.own_path()

    assert path == f"{runtime}/linepool/{os.getpid()}.sock"
    assert (runtime / "linepool").stat().st_mode & 0o777 == 0o700
    assert places.own_path() == path


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_can_write_to_is_not_used(runtime, mode):
    (runtime / "linepool").mkdir()
    (runtime / "linepool").chmod(mode)
    with listening(runtime / "linepool" / "1.sock"):
        assert places.own_path() is None
        assert places.sockets_in(f"{runtime}/linepool") == []


@pytest.mark.parametrize(("mode", "trusted"), [(0o700, True), (0o777, False), (0o1777, True)])
def test_nor_is_one_that_others_can_replace(runtime, mode, trusted):
    (runtime / "linepool").mkdir(0o700)
    runtime.chmod(mode)

    assert places.is_trusted(f"{runtime}/linepool") == trusted


@as_root
@pytest.mark.parametrize("stranger", ["linepool", "."])
def test_nor_one_of_another_user_or_in_one_of_his(runtime, stranger):
    (runtime / "linepool").mkdir(0o700)
    os.chown(runtime / stranger, OTHER_USER, OTHER_USER)
    with listening(runtime / "linepool" / "1.sock"):
        assert places.own_path() is None
        assert places.sockets_in(f"{runtime}/linepool") == []


@as_root
def test_nothing_is_made_in_a_directory_of_another_user(runtime):
    os.chown(runtime, OTHER_USER, OTHER_USER)

    assert places.own_path() is None
    assert list(runtime.iterdir()) == []


def test_nor_a_link(runtime):
    (runtime / "real").mkdir(0o700)
    (runtime / "linepool").symlink_to(runtime / "real")

    assert places.own_path() is None


def test_a_base_that_does_not_exist_or_is_not_absolute_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for base in (f"{tmp_path}/missing", "relative", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        assert places.own_path() != f"{base}/linepool/{os.getpid()}.sock"
    assert list(tmp_path.iterdir()) == []


def test_servers_are_looked_for_in_the_places_of_other_sessions_too(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/elsewhere")

    assert places.searched() == [
        "/run/user/elsewhere/linepool",
        f"/run/user/{os.geteuid()}/linepool",
        "/run/linepool",
        f"/tmp/linepool-{os.geteuid()}",
    ]


def test_only_sockets_of_this_user_count(runtime):
    folder = runtime / "linepool"
    folder.mkdir(0o700)
    (folder / "file.sock").write_text("")
    (folder / "link.sock").symlink_to(folder / "1.sock")
    with listening(folder / "1.sock"), listening(folder / "other"), listening(folder / "2.sock"):
        if os.getuid() == 0:
            os.chown(folder / "2.sock", OTHER_USER, OTHER_USER)
        found = places.sockets_in(str(folder))

    assert found == [f"{folder}/{n}.sock" for n in ((1,) if os.getuid() == 0 else (1, 2))]


@as_root
def test_a_socket_behind_which_another_users_process_listens_is_not_a_server(runtime):
    path = runtime / "linepool" / "1.sock"
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        pid = os.fork()
        if pid == 0:  # listen(2) is what SO_PEERCRED remembers
            os.setuid(OTHER_USER)
            sock.listen()
            os._exit(0)
        os.waitpid(pid, 0)
        with pytest.raises(SetupError, match="no server is running"):
            remote.find(None)


def test_the_file_of_a_dead_server_is_removed_but_not_that_of_one_that_is_about_to_listen(runtime):
    folder = runtime / "linepool"
    folder.mkdir(0o700)
    dead = 2**22 + 1  # above the largest pid (proc(5), pid_max)
    for pid in (dead, os.getpid()):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"{folder}/{pid}.sock")

    with pytest.raises(SetupError, match="no server is running"):
        remote.find(None)

    assert [one.name for one in folder.iterdir()] == [f"{os.getpid()}.sock"]
