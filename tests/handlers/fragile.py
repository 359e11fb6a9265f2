"""An app whose protocol raises an exception in the method that a client names."""

from __future__ import annotations

from common import add, pid

from linepool import App, Bad, Line, ReplyError, Request


class Fragile(Line):
    """The line protocol, but for lines such as ``FEED!``."""

    is_lost = False
    is_swollen = False

    def feed(self, data: bytes) -> None:
        if b"FEED!" in data:
            raise LookupError("feed")
        self.is_lost = self.is_lost or b"BOUNDARY!" in data
        self.is_swollen = self.is_swollen or b"SWELL!" in data
        super().feed(data)

    def next_request(self) -> Request | Bad | None:
        request = super().next_request()
        if isinstance(request, Request) and request.verb == b"NEXT!":
            raise MemoryError("next_request")
        return request

    @property
    def at_boundary(self) -> bool:
        if self.is_lost:
            raise IndexError("at_boundary")
        return super().at_boundary

    def dump(self) -> bytes:
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
