"""The app of torture_hostile.py, in the protocol that the environment names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction

import linepool
from linepool import App, Dialogue, JsonRpc, Line, Memcache, Protocol, Resp

_PROTOCOLS: dict[str, Protocol] = {
    "line": Line(),
    "memcache": Memcache(),
    "resp": Resp(transactions=True),
    "jsonrpc": JsonRpc(),
    "dialogue": Dialogue(greeting="220 ready"),
}
name = os.environ["PROTOCOL"]
app = App("hostile", protocol=_PROTOCOLS[name])


@app.handler("plus")
def plus(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


if name == "line":

    @app.handler
    def stream() -> Iterator[bytes]:
        """Send lines without end."""
        while True:
            yield b"x" * 8000

    @app.handler
    def word(text: str) -> str:
        """Return the word, which may contain a line break."""
        return text

    @app.handler
    def fraction(number: Fraction) -> str:
        """Return whether the number is positive."""
        return str(number > 0)

    @app.handler
    def put(size: int, data: bytes = linepool.body("size")) -> int:
        """Take a data block."""
        return len(data)


if name == "dialogue":

    @app.handler("data")
    def data(message: bytes = linepool.body()) -> tuple[int, str]:
        """Take a block that ends with a dot."""
        return 250, f"{len(message)} bytes"
