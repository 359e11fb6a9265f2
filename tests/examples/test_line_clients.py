"""The clients that the page on the line protocol shows read the framed replies of a real server."""

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from linepool import App
from linepool.testing import serve
from tests.examples.test_docs import FENCE
from tests.servers import ENVIRONMENT, ROOT

CODE = dict(FENCE.findall((ROOT / "docs/line-protocol.md").read_text(encoding="utf-8")))
ERROR = '- {"error":"CLIENT_ERROR","why":"missing","text":"b is missing","usage":"ADD a:int b:int"}'


@pytest.fixture(scope="module")
def server():
    app = App()

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def countdown(start: int) -> Iterator[int]:
        for left in range(start, 0, -1):
            yield 12 // (left - 1 if start == 3 else left)

    @app.handler
    def point() -> dict[str, int]:
        return {"x": 1, "y": 2}

    @app.handler
    def photo() -> bytes:
        return b'ab"\ncd'

    with serve(app, workers=1) as server:
        yield server


def test_the_client_in_python(server):
    names: dict[str, Any] = {}
    exec(CODE["python"], names)
    call = names["call"]
    with server.connect() as peer:
        stream = peer.socket.makefile("rwb")
        assert call(stream, "add 2 3") == 5
        assert call(stream, "countdown 2") == [6, 12]
        assert call(stream, "point") == {"x": 1, "y": 2}
        assert call(stream, "photo") == b'ab"\ncd'
        with pytest.raises(RuntimeError) as missing:
            call(stream, "add 2")
        assert str(missing.value) == ERROR
        with pytest.raises(RuntimeError, match="SERVER_ERROR"):
            call(stream, "countdown 3")  # fails in the middle
        assert call(stream, "quit") is None
        with pytest.raises(RuntimeError):
            call(stream, "add 2 3")  # the connection has ended


def test_the_client_in_go(server, tmp_path):
    if shutil.which("go") is None:
        pytest.skip("go is missing; './dev torture' installs it")
    (tmp_path / "client.go").write_text(CODE["go"], encoding="utf-8")
    lines = ["add 2 3", "countdown 2", "point", "photo", "add 2", "countdown 3", "add 1 1"]
    done = subprocess.run(
        ["go", "run", "client.go", server.address, *lines],
        cwd=tmp_path,
        env={**ENVIRONMENT, "HOME": str(tmp_path), "GOCACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    assert said[:5] == [
        "5 <nil>",
        "[6 12] <nil>",
        "map[x:1 y:2] <nil>",
        "[97 98 34 10 99 100] <nil>",
        f"<nil> {ERROR}",
    ]


def test_the_client_in_the_shell(server):
    host, port = server.address.split(":")
    code = CODE["sh"].replace("127.0.0.1 7000", f"{host} {port}")
    asked = "; ".join(
        f"call '{line}' || echo failed"
        for line in ("add 2 3", "countdown 2", "point", "photo", "add 2", "countdown 3")
    )
    done = subprocess.run(
        ["sh", "-c", code + asked], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout == '5\n6\n12\n{"x":1,"y":2}\nab"\ncdfailed\n6\n12\nfailed\n'
