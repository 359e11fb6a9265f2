"""What a handler pushes to its client, and where it stands among the replies."""

import linepool
from linepool.testing import serve


def test_what_is_pushed_comes_behind_earlier_replies_and_ahead_of_its_own():
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
