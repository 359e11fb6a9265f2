"""An app whose protocol raises an exception in the method that a client names."""

from __future__ import annotations

import asyncio

from common import add, pid

from linepool import App, Bad, Line, ReplyError, Request


class Fragile(Line):
    """The line protocol, but for lines such as ``FEED!``."""

    is_lost = False
    is_swollen = False
    is_cancelled = False

    def feed(self, data: bytes) -> None:
        if b"FEED!" in data:
            raise LookupError("feed")
        if b"INTERRUPT!" in data:
            raise KeyboardInterrupt("feed")
        self.is_lost = self.is_lost or b"BOUNDARY!" in data
        self.is_swollen = self.is_swollen or b"SWELL!" in data
        self.is_cancelled = self.is_cancelled or b"CANCELLED!" in data
        super().feed(data)

    def next_request(self) -> Request | Bad | None:
        request = super().next_request()
        if isinstance(request, Request) and request.verb == b"NEXT!":
            raise MemoryError("next_request")
        if isinstance(request, Request) and request.verb == b"CANCEL!":
            raise asyncio.CancelledError("next_request")
        return request

    def encode(self, value: object, request: Request) -> bytes:
        reply = super().encode(value, request)
        return reply.decode() if request.verb == b"TEXT" else reply  # type: ignore[return-value]

    @property
    def at_boundary(self) -> bool:
        if self.is_lost:
            raise IndexError("at_boundary")
        return super().at_boundary

    def dump(self) -> bytes:
        if self.is_cancelled:
            raise asyncio.CancelledError("dump")
        return super().dump() + (b"x" * 2**24 if self.is_swollen else b"")

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        if request is not None and request.verb == b"ENCODE!":
            raise ZeroDivisionError("encode_error")
        return super().encode_error(error, request)

    def eof(self) -> Bad | None:
        raise AttributeError("eof")


app = App("fragile", protocol=Fragile())
app.handler(add)
app.handler(pid)


@app.handler
def text() -> str:
    """Be answered in text, not in bytes."""
    return "text"
