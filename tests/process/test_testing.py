"""``linepool.testing``: real servers in the tests of an app."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

import linepool
from linepool.errors import SetupError
from linepool.testing import Peer, Server, serve


class Note:
    """The value of the resource."""

    pid = 0


def make_app() -> linepool.App:
    """Return a small app."""
    app = linepool.App("notes")

    @app.resource
    def note() -> Iterator[Note]:
        opened = Note()
        opened.pid = os.getpid()
        yield opened

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def mine(note: Note) -> str:
        return f"{note.pid} {os.getpid()}"

    @app.handler
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @app.handler
    def rows() -> list[str]:
        return ["a", "b"]

    return app


def test_serve_runs_real_processes_until_the_block_ends():
    with serve(make_app(), workers=2) as server:
        assert server.ask("ADD 2 3") == "5"
        opened, serving = server.ask("MINE").split()
        assert opened == serving
        assert int(serving) not in (os.getpid(), server.pid)
        assert server.ask("ROWS").split() == ["a", "b", "END"]
        with server.connect() as peer:
            assert peer.ask_lines("ROWS") == ["a", "b"]
        address = server.address

    with pytest.raises(OSError, match="refused"):
        Peer(address)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_serve_takes_settings_and_any_listener(tmp_path):
    bind = ["127.0.0.1:0", f"unix:{tmp_path}/s"]
    with serve(make_app(), bind=bind, max_line_bytes=20) as server:
        assert server.addresses[1] == bind[1]
        assert server.ask("ADD 1 " + "1" * 20).startswith("CLIENT_ERROR a line may hold 20 bytes")
        with Peer(server.addresses[1]) as peer:
            assert peer.ask("ADD 2 3") == "5"


def test_serve_survives_the_death_of_a_worker():
    with serve(make_app(), workers=1) as server:
        assert server.ask("DIE") == ""
        assert server.ask("ADD 2 3") == "5"


def test_serve_says_that_an_address_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = serve(make_app(), bind=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(linepool.SetupError, match="Address already in use"), server:
            pass


def test_serve_says_that_a_setting_is_unknown():
    server = serve(make_app(), idel_timeout=3)
    with pytest.raises(linepool.SetupError, match="'idle_timeout'"), server:
        pass


def test_serve_says_that_the_first_generation_failed():
    app = make_app()

    @app.on_worker_start
    def fail() -> None:
        raise RuntimeError("no database")

    with serve(app, workers=1) as server:
        with server.connect() as peer:
            assert _ends(peer)
        assert server.stop() == 1


def test_serve_says_that_on_start_failed():
    app = make_app()

    @app.on_start
    def fail() -> None:
        raise RuntimeError("no licence")

    with pytest.raises(linepool.SetupError, match="no licence"), serve(app):
        pass


def test_an_exception_inside_the_block_ends_the_server_too():
    pids = []

    def fail() -> None:
        with serve(make_app()) as server:
            pids.append(server.pid)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_server_that_is_stopped_as_soon_as_it_listens_stops_gracefully(tmp_path):
    for _ in range(5):
        with serve(make_app(), bind=f"unix:{tmp_path}/s", workers=1) as server:
            assert server.stop() == 0
        assert not (tmp_path / "s").exists()


def test_the_fixture_starts_several_servers(linepool_server: Callable[..., Server]):
    one = linepool_server(make_app())
    other = linepool_server(make_app(), workers=1)

    assert one.address != other.address
    assert one.ask("ADD 2 3") == other.ask("ADD 2 3") == "5"


def test_a_client_of_an_app_is_given_and_closed(linepool_client):
    app = make_app()
    assert linepool_client(app).call("add", 2, 3) == 5
    assert linepool_client(app).call("mine") == f"{os.getpid()} {os.getpid()}"


@pytest.mark.parametrize("number", [1, 2])
def test_an_app_is_asked_with_resources_that_are_replaced_for_one_test(linepool_ask, number):
    app = SHARED
    if number == 1:
        fake = Note()
        fake.pid = 7
        assert linepool_ask(app, {Note: fake})("MINE") == f"7 {os.getpid()}"
    else:
        assert linepool_ask(app)(b"MINE\n") == b"%d %d\n" % (os.getpid(), os.getpid())


def test_asking_raises_the_exceptions_of_handlers_unless_told_otherwise(linepool_ask):
    app = linepool.App()

    @app.handler
    def fail() -> None:
        raise KeyError("a")

    ask = linepool_ask(app)
    with pytest.raises(KeyError):
        ask("FAIL")
    assert ask("FAIL", raise_errors=False).startswith("SERVER_ERROR internal error, id ")


SHARED = make_app()


@pytest.mark.parametrize("number", [1, 2])
def test_tests_share_a_server_until_it_is_stopped(
    linepool_shared_server: Callable[..., Server], number
):
    server = linepool_shared_server(SHARED, workers=1)
    assert server.ask("ADD 2 3") == "5"
    assert linepool_shared_server(SHARED, workers=1) is server
    if number == 2:
        server.stop()
        again = linepool_shared_server(SHARED, workers=1)
        assert again is not server
        assert again.ask("ADD 2 3") == "5"


def test_a_second_server_does_not_keep_the_first_ones_connections_open(
    linepool_server: Callable[..., Server], tmp_path
):
    app = make_app()
    os.mkfifo(tmp_path / "fifo")
    gone = os.open(tmp_path / "fifo", os.O_RDWR)

    @app.on_disconnect
    def part() -> None:
        os.write(gone, b"!")

    first = linepool_server(app)
    with first.connect() as peer:
        assert peer.ask("ADD 2 3") == "5"
        linepool_server(make_app())

    assert select.select([gone], [], [], 3)[0]
    os.close(gone)


def test_a_connect_to_a_missing_unix_socket_leaks_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        Peer(f"unix:{tmp_path}/missing")


def test_a_refused_connect_leaks_nothing():
    with pytest.raises(ConnectionRefusedError):
        Peer("127.0.0.1:1")


def _ends(peer: Peer) -> bool:
    """Whether the server ends a connection without a reply."""
    try:
        return peer.line() == ""
    except ConnectionResetError:
        return True


def test_ask_lines_ends_at_an_error_line():
    app = make_app()

    @app.handler
    def some(count: int) -> Iterator[int]:
        yield from range(count)
        raise linepool.ClientError("that is all")

    with serve(app) as server, server.connect() as peer:
        assert peer.ask_lines("nothing") == [
            "ERROR unknown command 'nothing'. HELP lists the commands."
        ]
        assert peer.ask_lines("some x")[0].startswith("CLIENT_ERROR count must be int")
        assert peer.ask_lines("some 2") == ["0", "1", "CLIENT_ERROR that is all"]
        assert peer.ask("add 1 2") == "3"


def test_the_log_of_a_server_is_on_standard_error(capfd):
    app = linepool.App()

    @app.handler
    def fail() -> None:
        raise ValueError("boom")

    with serve(app) as server:
        server.ask("FAIL")
    assert "handler failed id=" in (said := capfd.readouterr().err)
    assert "ValueError: boom" in said


def test_several_apps_have_an_address_each(linepool_server: Callable[..., Server], tmp_path):
    main, admin = make_app(), linepool.App("admin", protocol=linepool.Resp(), bind="127.0.0.1:1")
    unnamed = linepool.App()

    @admin.handler
    def pid() -> int:
        return os.getpid()

    @unnamed.handler
    def ping() -> str:
        return "pong"

    bind = {"admin": ["127.0.0.1:0", f"unix:{tmp_path}/s"]}
    server = linepool_server(main, admin, unnamed, workers=1, bind=bind)

    assert len(server.addresses) == 4
    assert server.addresses[2] == f"unix:{tmp_path}/s"
    assert server.ask("ADD 2 3") == server.ask("ADD 2 3", main) == "5"
    assert server.ask("PING", unnamed) == "pong"
    with server.connect(admin) as peer, Peer(server.addresses[2]) as other:
        assert peer.ask("PID") == other.ask("PID")
    assert server.client(linepool.Client, admin).call("PID") == server.client(admin).call("PID")
    assert server.client().call("ADD", 2, 3) == 5
    with pytest.raises(
        SetupError, match="does not serve the app 'notes'; it serves notes, admin, app3"
    ):
        server.connect(make_app())


@pytest.mark.parametrize("bind", ["127.0.0.1:0 ", {"notes": "127.0.0.1:0", "x": "127.0.0.1:0"}])
def test_the_addresses_of_several_apps_are_given_by_name(bind):
    error = r"bind must be a dict with the addresses by the names of the apps \(notes, admin\)"
    with (
        pytest.raises(SetupError, match=error),
        serve(make_app(), linepool.App("admin"), bind=bind),
    ):
        pass
    with pytest.raises(SetupError, match=r"give an app: serve\(app\)"), serve():
        pass
