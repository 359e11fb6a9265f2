"""Handlers whose replies come in parts, for clients that do not read them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from common import add, announce, flood, pid, stream

from linepool import App, Connection, Line, PubSub
from linepool.pubsub.messages import Message


class Chat(Line):
    """The line protocol, with messages between replies."""

    publishes = True

    def encode_message(self, message: Message) -> bytes:
        return b"message %b\r\n" % message.data


app = App("streaming", protocol=Chat())
for handler in (add, flood, pid, stream):
    app.handler(handler)


@app.handler
def watched() -> Iterator[bytes]:
    """Send lines without end; announce the end of this handler at the gate."""
    try:
        while True:
            yield b"x" * 1_000_000
    finally:
        announce()


@app.handler
def stuck(lines: int) -> Iterator[bytes]:
    """Send long lines, and then hang."""
    for _ in range(lines):
        yield b"x" * 1_000_000
    time.sleep(1000)


@app.handler
def listen(connection: Connection, lines: int) -> Iterator[bytes]:
    """Subscribe to messages, and send long lines."""
    connection.subscribe(b"news")
    for _ in range(lines):
        yield b"x" * 1_000_000


@app.handler
def publish(text: str, pubsub: PubSub) -> int:
    """Send a message to the subscribers."""
    return pubsub.publish(b"news", text.encode())


@app.handler
def push(count: int, connection: Connection) -> str:
    """Push long lines, as many as the client takes."""
    for number in range(count):
        try:
            connection.push(b"x" * 1_000_000)
        except OSError as error:
            return f"{number} {error}"
    return "all"
