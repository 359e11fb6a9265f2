"""The command PING of Redis, which redis-benchmark sends."""

import linepool

app = linepool.App("pong", protocol=linepool.Resp())


@app.handler
def ping() -> str:
    """Reply."""
    return "PONG"
