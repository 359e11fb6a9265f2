"""In every protocol the client of an overdue or killed request reads an error of that protocol."""

from __future__ import annotations

import json
import time

import pytest

from linepool import App, Dialogue, JsonRpc, Line, Memcache, Resp
from linepool.testing import serve


def hang() -> None:
    """Sleep, whatever is raised; only a kill ends it."""
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - this one is meant to be bad
            continue


def slow() -> None:
    """Sleep until it is overdue."""
    time.sleep(60)


@pytest.mark.both
@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(
    ("protocol", "request_", "error"),
    [
        (Resp(), b"*1\r\n$4\r\n%b\r\n", b"-ERR the request"),
        (Memcache(), b"%b\r\n", b"SERVER_ERROR the request"),
        (Dialogue(greeting="220 x"), b"%b\r\n", b"451 the request"),
        (Line(), b"@x=1,i=7 %b\n", b'@7 - {"error":"SERVER_ERROR",'),
        (JsonRpc(), b'{"jsonrpc":"2.0","method":"%b","id":7}\n', b'{"jsonrpc":"2.0","error"'),
    ],
    ids=["resp", "memcache", "dialogue", "framed", "jsonrpc"],
)
def test_the_client_of_an_overdue_or_killed_request_reads_an_error(protocol, request_, error):
    app = App(protocol=protocol)
    app.handler("hang")(hang)
    app.handler("slow")(slow)
    with serve(app, workers=1, request_timeout=0.2, kill_grace=0.2) as server:
        for name, number in ((b"slow", 7), (b"hang", None)):
            with server.connect() as peer:
                if isinstance(protocol, Dialogue):
                    peer.line()
                peer.send(request_ % name)
                line = peer.line().encode()
            assert line.startswith(error)
            if isinstance(protocol, JsonRpc):
                assert json.loads(line)["id"] == number
