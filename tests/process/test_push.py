"""What a handler pushes to its client, and its place among the replies."""

import pytest

import linepool
from linepool.testing import serve


@pytest.mark.both
@pytest.mark.usefixtures("implementation")
def test_a_pushed_line_comes_after_earlier_replies_and_before_its_own():
    app = linepool.App("push")

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def pusher(connection: linepool.Connection) -> str:
        connection.push("pushed")
        return "own"

    with serve(app) as server, server.connect() as peer:
        peer.send(b"ADD 1 1\nPUSHER\nADD 2 2\n")

        assert [peer.line() for _ in range(4)] == ["2", "pushed", "own", "4"]
