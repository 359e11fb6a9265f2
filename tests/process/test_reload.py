"""Reload: new code and settings, and everything that goes wrong with them, on a server that goes on."""

from __future__ import annotations

import os
import re
import signal
import textwrap
from pathlib import Path

import pytest

from linepool.errors import SetupError
from tests.servers import ServerProcess, children_of, has_ended

APP = """
    import os, sys, time
    import linepool

    {top}

    @linepool.handler
    def version() -> str:
        return {version!r}

    @linepool.handler
    def worker() -> int:
        return os.getpid()

    @linepool.handler
    def sleep(seconds: float) -> str:
        time.sleep(seconds)
        return {version!r}

    @linepool.handler
    def login(user: str, session: linepool.Session) -> str:
        session["user"] = user
        return user

    @linepool.handler
    def whoami(session: linepool.Session) -> str:
        return f"{{session.get('user')}} {version}"

    {bottom}
"""


class App:
    """The file that a server serves; its code can be changed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "app.py"
        self.edits = 0
        self.write("1")

    def write(self, version: str, top: str = "", bottom: str = "") -> None:
        code = textwrap.dedent(APP).format(version=version, top=top, bottom=bottom)
        # Python would take the compiled module of another text of this length in the same second.
        self.edits += 1
        self.path.write_text(code + "#" * self.edits)


@pytest.fixture
def app(tmp_path) -> App:
    return App(tmp_path)


def launch(app: App, *options: str, **more) -> ServerProcess:
    return ServerProcess(app.path.parent, "app.py", *options, **more)


def reload(server: ServerProcess) -> str:
    return server.order("RELOAD")


@pytest.mark.parametrize("scheme", ["shared", "dispatch"])
def test_open_connections_continue_with_the_new_code(app, scheme):
    with launch(app, "--workers", "3", "--park-after", "0.01", scheme=scheme) as server:
        active, idle, known = server.connect(), server.connect(), server.connect()
        with active, idle, known:
            assert idle.ask("version") == "1"
            assert known.ask("login ann") == "ann"
            before = server.watch().copy()
            active.send(b"version\nver")
            assert active.line() == "1"
            app.write("2")
            assert re.fullmatch(r"generation 2, 3 workers, \d+\.\d\d s", reload(server))
            active.send(b"sion\n")
            assert active.line() == "2"
            assert idle.ask("version") == "2"
            assert known.ask("whoami") == "ann 2"
        state = server.until(lambda state: len(state["workers"]) == 3)
        assert state["generation"] == 2
        assert {worker["generation"] for worker in state["workers"]} == {2}
        assert state["counters"]["dropped"] == state["counters"]["crashes"] == 0
        workers = {worker["pid"] for worker in state["workers"]}
        assert not workers & set(before)
        assert server.stop() == 0


def test_a_request_in_flight_is_answered_by_the_worker_that_has_it(app):
    with launch(app, "--workers", "1") as server, server.connect() as peer:
        peer.send(b"sleep 1\nversion\n")
        server.until(lambda state: state["tally"]["busy"])
        app.write("2")
        reload(server)
        assert server.ask("version") == "2"
        assert peer.line() == "1"
        assert server.stop() == 0


def test_a_connection_that_cannot_move_keeps_its_worker(app):
    with launch(app, "--workers", "2", scheme="accept") as server, server.connect() as peer:
        assert peer.ask("version") == "1"
        app.write("2")
        reload(server)
        assert server.ask("version") == "2"
        assert peer.ask("version") == "1"
        peer.close()
        server.until(lambda state: {one["generation"] for one in state["workers"]} == {2})
        server.wait_for("generation has ended number=1")


BROKEN = {
    "def f(:": r"cannot load app.py: SyntaxError: .*app.py, line \d+",
    "1 / 0": r"cannot load app.py: ZeroDivisionError: division by zero \(.*app.py, line 5\)",
    "import missing_module": r"cannot load app.py: ModuleNotFoundError",
    "sys.exit('no')": r"cannot load app.py: SystemExit: no",
    "os._exit(4)": r"cannot load app.py: the process that loads it has ended: exit status 4",
    "os.kill(os.getpid(), 11)": r"cannot load app.py: .* has ended: signal SIGSEGV",
    "linepool.on_start(lambda: 1 / 0)": r"on_start failed: ZeroDivisionError",
    "linepool.on_worker_start(lambda: 1 / 0)": r"the first worker of the new generation did not",
}


def test_code_that_does_not_come_up_leaves_the_old_code_in_place(app):
    with launch(app, "--workers", "2") as server, server.connect() as peer:
        pids = server.pids()
        for code, why in BROKEN.items():
            app.write("2", top=code)
            with pytest.raises(SetupError, match=why):
                reload(server)
            assert peer.ask("version") == "1", code
        assert server.pids() == pids
        state = server.status()
        assert state["generation"] == 1
        app.write("3")
        assert reload(server).startswith("generation ")
        assert peer.ask("version") == "3"
        server.until(lambda state: len(children_of(server.process.pid)) == 4)  # with loader, parker


def test_a_load_that_hangs_ends_and_the_log_shows_where(app):
    with launch(
        app, "--workers", "1", "--load-timeout", "6"
    ) as server:  # a busy machine imports in that
        app.write("2", top="time.sleep(1000)")
        with pytest.raises(SetupError, match=r"it takes longer than 6 s \(load_timeout\)"):
            reload(server)
        server.wait_for("Current thread")
        server.wait_for("app.py")
        assert server.ask("version") == "1"


def test_what_fails_is_in_the_log_with_the_users_own_frames(app):
    with launch(app, "--workers", "1") as server:
        app.write("2", bottom="def inner():\n    raise LookupError('here')\ninner()")
        server.send(signal.SIGHUP)
        assert "generation 1 stays: cannot load app.py: LookupError: here" in server.wait_for(
            "reload failed"
        )
        server.wait_for("in inner")
        app.write("3")
        server.send(signal.SIGHUP)
        server.wait_for("reloaded generation 2")
        assert server.ask("version") == "3"


def test_orders_during_a_reload_cause_one_more(app):
    with launch(app, "--workers", "1") as server:
        app.write("2", top="time.sleep(0.5)")
        server.send(signal.SIGHUP)
        server.wait_for("reloading generation=1")
        app.write("3")
        assert reload(server).startswith("generation 3,")
        server.wait_for("reloaded generation 3")
        assert server.ask("version") == "3"
        assert server.text.count("reloading") == 2


def test_settings_that_may_change_and_those_that_may_not(app, tmp_path):
    config = tmp_path / "linepool.toml"
    config.write_text("workers = 2\nrequest_timeout = 20\n")
    with launch(app) as server:
        assert server.status()["tally"]["max"] == 2
        config.write_text(
            "workers = '3:5'\nrequest_timeout = 0.2\nkill_grace = 0.1\nmin_spare = 0\n"
        )
        assert reload(server).startswith("generation 2, 3 workers")
        assert server.ask("sleep 60").startswith("SERVER_ERROR")
        for setting, text in (
            ("scheme = 'accept'", "scheme cannot change (from shared to accept)"),
            ("hot_connections = 7", "hot_connections cannot change (from 64 to 7)"),
            ("wrokers = 7", "unknown setting 'wrokers'; did you mean 'workers'?"),
            ("workers = 'x'", "workers must be N or MIN:MAX"),
        ):
            config.write_text(f"{setting}\n")
            with pytest.raises(SetupError, match=re.escape(text)):
                reload(server)
        server.order("SCALE 4")
        config.write_text("workers = '3:5'\n")
        reload(server)
        assert server.status()["tally"]["max"] == 4  # what was ordered holds


def test_listeners_are_added_and_removed(app, tmp_path):
    config = tmp_path / "linepool.toml"
    first, second = f"unix:{tmp_path}/first", f"unix:{tmp_path}/second"
    config.write_text(f"bind = ['{first}', '127.0.0.1:0']\nworkers = 2")
    with launch(app, bind=()) as server:
        old, kept = server.addresses
        with server.connect(0) as peer:
            config.write_text(f"bind = ['127.0.0.1:0', '{second}']\nworkers = 2")
            reload(server)
            assert [one["address"] for one in server.status()["listeners"]] == [kept, second]
            assert peer.ask("version") == "1"  # a connection outlives its listener
        server.wait_for(f"listener closed address={old}")
        assert not (tmp_path / "first").exists()
        server.addresses = [kept, second]
        for number in (0, 1):
            with server.connect(number) as peer:
                assert peer.ask("version") == "1"
        config.write_text("bind = ['127.0.0.1:0', '192.0.2.1:7']\nworkers = 2")
        with pytest.raises(SetupError, match=r"cannot listen on 192\.0\.2\.1:7"):
            reload(server)
        assert server.stop() == 0
        assert not (tmp_path / "second").exists()


def test_a_loader_that_is_killed_is_replaced(app):
    with launch(app, "--workers", "2") as server:
        loader = _loader(server)
        pidfd = os.pidfd_open(loader)
        os.kill(loader, signal.SIGKILL)
        assert has_ended(pidfd)
        os.close(pidfd)
        server.wait_for("loader died why='signal SIGKILL'")
        server.wait_for("reloaded generation 2")
        state = server.until(lambda state: len(state["workers"]) == 2)
        pid = state["workers"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        server.until_gone(pid)
        server.until(lambda state: state["tally"]["idle"] == 2)
        assert server.ask("version") == "1"


def test_a_loader_that_is_killed_during_a_reload_is_replaced(app):
    gate = app.path.parent / "gate"
    os.mkfifo(gate)
    all_but_the_first_wait = """
    @linepool.on_worker_start
    def wait():
        try:
            open("first", "x").close()
        except FileExistsError:
            open("gate").close()
    """
    with launch(app, "--workers", "4", "--reload-batch", "0.25") as server:
        app.write("2", top=textwrap.dedent(all_but_the_first_wait))
        server.send(signal.SIGHUP)
        state = server.until(lambda state: state["generation"] == 2)
        os.kill(state["processes"]["loader"], signal.SIGKILL)
        server.wait_for("reload failed, generation 2 stays: the loader has ended")
        with open(os.open(gate, os.O_RDWR), "w"):
            server.wait_for("reloaded generation 3")
            server.until(lambda state: [one["generation"] for one in state["workers"]] == [3] * 4)
        assert server.ask("version") == "2"


def test_bounds_that_are_ordered_during_a_reload_stay(app):
    gate = app.path.parent / "gate"
    os.mkfifo(gate)
    with launch(app, "--workers", "2") as server:
        app.write("2", top="open('gate').close()")
        server.send(signal.SIGHUP)
        server.wait_for("reloading generation=1")
        assert server.order("SCALE 3") == "workers 3"
        with open(os.open(gate, os.O_RDWR), "w"):
            server.wait_for("reloaded generation 2")
        server.until(lambda state: len(state["workers"]) == 3)
        assert server.ask("version") == "2"


def _loader(server: ServerProcess) -> int:
    """Return the pid of the loader: the first child of the master."""
    return min(children_of(server.process.pid))


def test_new_workers_that_die_have_the_old_generation_back(app):
    order = app.path.parent / "die"
    os.mkfifo(order)
    dying = (
        "linepool.on_worker_start(lambda: __import__('threading').Thread("
        "target=lambda: (open('die'), os._exit(3)), daemon=True).start())"
    )
    with launch(app, "--workers", "4") as server:
        app.write("2", top=dying)
        reload(server)
        with order.open("w"):
            server.wait_for("reload rolled back")
            server.until(lambda state: {one["generation"] for one in state["workers"]} == {1})
        assert server.ask("version") == "1"
        server.until(lambda state: state["generation"] == 1 and state["tally"]["idle"] == 4)


def test_a_script_reloads_itself(app, tmp_path):
    app.path.write_text(app.path.read_text() + "\nlinepool.run(workers=2)\n")
    with launch(app, command=("-P",)) as server, server.connect() as peer:
        assert peer.ask("version") == "1"
        app.path.write_text(app.path.read_text().replace("'1'", "'22'"))
        reload(server)
        assert peer.ask("version") == "22"


def test_a_release_behind_a_symbolic_link_is_loaded_by_its_name(tmp_path):
    current = tmp_path / "current"
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        App(tmp_path / release).write(release)
    current.symlink_to("1")
    with ServerProcess(current, "app.py", environment={"PWD": str(current)}) as server:
        server.control = str(tmp_path / "1" / Path(server.control).name)
        assert server.ask("version") == "1"
        current.unlink()
        current.symlink_to("2")
        reload(server)
        assert server.ask("version") == "2"
        current.unlink()
        with pytest.raises(SetupError, match=r"cannot load app.py: .*current: No such file"):
            reload(server)
        assert server.ask("version") == "2"


def test_a_drained_server_is_filled_by_a_reload(app):
    with launch(app, "--workers", "2") as server:
        server.order("DRAIN")
        server.until(lambda state: not state["workers"])
        app.write("2")
        reload(server)
        assert server.ask("version") == "2"


def test_a_stop_during_a_reload(app):
    with launch(app, "--workers", "2") as server:
        app.write("2", top="time.sleep(30)")
        server.send(signal.SIGHUP)
        server.wait_for("reloading")
        assert server.stop() == 0
        assert not children_of(server.process.pid)
