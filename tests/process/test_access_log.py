"""The access log: a line for each request, however it ends."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.errors import SetupError
from linepool.operate.access_output import AccessFile, open_output
from tests.conftest import Launch
from tests.servers import TIMEOUT, ServerProcess

FORMAT = "{command} {user} {request} {result} {bytes_in} {bytes_out}"


class Reader:
    """Reads an access log from a FIFO as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._data = b""

    def lines(self, count: int) -> list[str]:
        """Return the next lines."""
        while self._data.count(b"\n") < count:
            assert select.select([self.descriptor], [], [], TIMEOUT)[0], self._data
            self._data += os.read(self.descriptor, 65536)
        *lines, self._data = self._data.split(b"\n", count)
        return [line.decode() for line in lines]


@pytest.fixture(scope="module")
def reader(implementation: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    reader = Reader(tmp_path_factory.mktemp("access") / "log")
    yield reader
    os.close(reader.descriptor)


@pytest.fixture(scope="module")
def server(implementation: None, reader: Reader) -> Iterator[ServerProcess]:
    options = ["--access-log", str(reader.path), "--access-log-format", FORMAT]
    options += ["--log-requests", "line", "--max-line-bytes", "100", "--workers", "1"]
    with ServerProcess(reader.path.parent, "accessed.py", *options) as server:
        yield server


ENDS = [
    (b"add 1 2\n", ["ADD - add 1 2 ok 8 2"]),
    (b"plus 1 2\r\n", ["ADD - plus 1 2 ok 10 3"]),
    (b"add 1 2\nadd 1 3\nadd 1 4\n", [f"ADD - add 1 {n} ok 8 2" for n in (2, 3, 4)]),
    (b"\n \nadd 1 2\n", ["ADD - add 1 2 ok 11 2"]),
    (b"add 1\n", ["ADD - add 1 client_error 6 50"]),
    (b"fro 1\n", ["(unknown) - fro 1 client_error 6 54"]),
    (b"fail\n", ["FAIL - fail server_error 5 41"]),
    (b"late\n", ["LATE - late timeout 5 48"]),
    (b"count 3\nadd 1 2\n", ["COUNT - count 3 ok 8 10", "ADD - add 1 2 ok 8 2"]),
    (b"breaks\n", ["BREAKS - breaks server_error 7 43"]),
    (b"put a 3\nabc\n", ["PUT - put a 3 ok 12 2"]),
    (b"login me x\nadd 1 2\n", ["LOGIN me login ok 11 8", "ADD me add 1 2 ok 8 2"]),
    (b"login m\xc2\x9b\xe2\x80\xa8x x\n", ["LOGIN m\\x9b\\u2028x login ok 16 8"]),
    (b'add 1 2\x1b[2J"\n', ["ADD - add 1 2\\x1b[2J\\x22 client_error 13 68"]),
    (b"add 'x\n", ["- - - client_error 7 69"]),
    (b"a" * 101 + b"\n", ["- - - client_error - 48"]),
    (b"add 1 2", ["- - - incomplete - -"]),
    (b"GET / HTTP/1.1\r\n\r\n", ["- - - refused - -"]),
]


@pytest.mark.both
def test_each_request_has_a_line_that_says_how_it_has_ended(server: ServerProcess, reader: Reader):
    for data, lines in ENDS:
        with server.connect() as peer:
            peer.send(data)
            peer.rest()
            assert reader.lines(len(lines)) == lines, data


@pytest.mark.both
def test_a_stream_is_logged_when_its_client_has_left(server: ServerProcess, reader: Reader):
    with server.connect() as peer:
        peer.send(b"count 100000000\n")
        assert peer.line() == "0"
    words = reader.lines(1)[0].split()
    assert words[:-1] == ["COUNT", "-", "count", "100000000", "disconnected", "16"]
    assert int(words[-1]) > 0


@pytest.mark.both
def test_a_request_that_ends_with_its_worker_is_logged(server: ServerProcess, reader: Reader):
    with server.connect() as peer:
        peer.send(b"add 1 2\nhang a\nadd 1 3\n")
        slot = server.until(lambda state: state["workers"][0]["command"])["workers"][0]["slot"]
        server.order(f"KILL {slot}")
        assert reader.lines(1) == ["HANG - hang a killed - -"]
    with server.connect() as peer:
        peer.send(b"die\n")
        assert reader.lines(1) == ["DIE - die died - -"]


@pytest.mark.both
def test_generator_middleware_and_on_error_see_how_each_request_ends(
    server: ServerProcess, reader: Reader
):
    with server.connect() as peer:
        peer.ask_lines("events")
        peer.send(b"add 1 2\nadd 1\nfail\nlate\ncount 1\nbreaks\n")
        assert [peer.line()[:12] for _ in range(8)] == [
            *("3", "CLIENT_ERROR", "SERVER_ERROR", "SERVER_ERROR", "0", "END", "1", "SERVER_ERROR"),
        ]
        assert peer.ask_lines("events") == [
            "events complete",
            "add complete",
            "add UsageError",
            *("fail ZeroDivisionError", "reported ZeroDivisionError"),
            *("late RequestTimeout", "reported RequestTimeout"),
            "count complete",
            *("breaks KeyError", "reported KeyError"),
        ]
        reader.lines(8)
        with server.connect() as other:
            other.send(b"count 100000000\n")
            assert other.line() == "0"
        assert "disconnected" in reader.lines(1)[0]
        assert peer.ask_lines("events") == ["events complete", "count GeneratorExit"]
        reader.lines(1)


JSONRPC = """
import linepool
app = linepool.App(protocol=linepool.JsonRpc(), access_log={path!r}, access_log_format="json")
@app.handler
def add(a: int, b: int) -> int:
    return a + b
"""


@pytest.mark.both
def test_each_call_of_a_batch_has_a_line_as_json(
    implementation: None, tmp_path: Path, launch: Launch
):
    reader = Reader(tmp_path / "log")
    (tmp_path / "app.py").write_text(JSONRPC.format(path=str(reader.path)))
    server = launch("app.py", "--workers", "1")
    call = '{"jsonrpc":"2.0","id":1,"method":"%s","params":[1,%s]}'
    calls = [call % two for two in (("add", "2"), ("fro", "2"), ("add", '"x"'))]
    batch = f"[{','.join(calls)}]\n"
    with server.connect() as peer:
        reply = peer.ask(batch.strip())
        lines = [json.loads(line) for line in reader.lines(4)]
    names = ("command", "request", "result", "bytes_in", "bytes_out")
    assert [tuple(line[name] for name in names) for line in lines] == [
        ("add", "add", "ok", None, None),
        ("(unknown)", "(unknown)", "client_error", None, None),
        ("add", "add", "client_error", None, None),
        ("(batch)", "(batch)", "ok", len(batch), len(reply) + 1),
    ]
    assert len({line["id"] for line in lines}) == 4
    assert 0 <= lines[3]["waited"] <= lines[3]["duration"] + 60
    os.close(reader.descriptor)


PLAIN = """
import linepool
@linepool.handler
def add(a: int, b: int) -> int:
    return a + b
@linepool.handler
def put(key: str, size: int, data: bytes = linepool.body("size")) -> str:
    return key
"""


@pytest.mark.both
def test_a_connection_that_moves_in_the_middle_of_a_request_is_logged_once(
    implementation: None, tmp_path: Path, launch: Launch
):
    reader = Reader(tmp_path / "log")
    options = ["--access-log", str(reader.path), "--access-log-format", FORMAT]
    (tmp_path / "app.py").write_text(PLAIN)
    server = launch("app.py", *options, "--workers", "1", scheme="dispatch")
    with server.connect() as peer:
        peer.send(b"add 1 2\r\nadd 1 3\nput a 5\nab")
        assert [peer.line(), peer.line()] == ["3", "4"]
        server.until(lambda status: status["connections"]["parked"] == 1)
        peer.send(b"cde\n")
        assert peer.line() == "a"
        lines = ["ADD - ADD ok 9 3", "ADD - ADD ok 8 2", "PUT - PUT ok 14 2"]
        assert reader.lines(3) == lines
    os.close(reader.descriptor)


def test_reload_and_reopen(tmp_path: Path, launch: Launch):
    config, path = tmp_path / "linepool.toml", tmp_path / "access.log"
    config.write_text("")
    server = launch("accessed.py", "--workers", "1", "--config", str(config))
    with server.connect() as peer:
        assert peer.ask("add 1 2") == "3"

        config.write_text(f'access_log = "{path}"\naccess_log_format = "{{command}}"')
        server.order("RELOAD")
        server.wait_for("reloaded")
        assert peer.ask("add 1 2") == "3"
        server.until(lambda _: path.exists() and path.read_text() == "ADD\n")

        path.rename(tmp_path / "old")
        server.send(signal.SIGUSR1)
        server.wait_for(f"file opened anew path={path}")
        assert peer.ask("add 1 2") == "3"
        server.until(lambda _: path.read_text() == "ADD\n")
        assert (tmp_path / "old").read_text() == "ADD\n"

        config.write_text('access_log = "/dev/full"')
        server.order("RELOAD")
        server.wait_for("reloaded")
        assert [peer.ask("add 1 2") for _ in range(3)] == ["3"] * 3
        server.wait_for("access log lines dropped why='/dev/full cannot be written'")


def test_a_pipe_that_is_not_read_costs_lines_not_requests(tmp_path: Path):
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    output = AccessFile(str(path))
    lines = b"".join(b"%d %s\n" % (number, b"x" * 90) for number in range(1000))
    left = output.write(lines)
    while left != lines:
        left = output.write(lines)
    received = b""
    while select.select([reader], [], [], 0)[0]:
        received += os.read(reader, 65536)
    assert received.endswith(b"\n")
    assert {len(line.split()[1]) for line in received.splitlines()} == {90}
    assert output.write(b"again\n") == b""
    os.close(reader)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path):
    with pytest.raises(SetupError, match=r"^access_log: cannot open .*/none/log: No such file"):
        open_output(str(tmp_path / "none" / "log"))
    assert open_output("off") is None
