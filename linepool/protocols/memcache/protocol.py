"""memcached's text protocol: options and replies. parser.py reads the requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from linepool.errors import ReplyError, ServerError, UnknownCommand, UsageError
from linepool.protocols.base import Builtin, Request
from linepool.protocols.memcache.commands import BUILTINS
from linepool.protocols.memcache.meta import Flags, Meta, encode_meta
from linepool.protocols.memcache.parser import MemcacheParser, MemcacheRequest
from linepool.protocols.memcache.replies import Value, encode_reply, encode_value
from linepool.protocols.text import one_line


class Memcache(MemcacheParser):
    """memcached's text protocol.

    Args:
        version: The reply to ``version``.
        max_multiget_bytes: Limit of the line of a get. Other lines may have 2048 bytes.
    """

    ignores_case = False
    line_end = b"\r\n"
    supplies: ClassVar[Mapping[Any, Callable[[Request, Any], object]]] = {
        Flags: lambda request, _conversation: _flags(request)
    }

    def __init__(
        self, *, version: str = "1.6.18-linepool", max_multiget_bytes: int = 1024 * 1024
    ) -> None:
        self.version = version
        self.max_multiget_bytes = max_multiget_bytes

    def builtins(self) -> Iterable[Builtin]:
        """version, verbosity, mn and quit."""
        return BUILTINS

    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply, or b"" if the client asked for none.

        A Value, or several, end with END; so do the pairs of a dict (STAT lines). None is END after
        a get and OK after any other command; True and False are memcached's words for the command
        (STORED and NOT_STORED, DELETED and NOT_FOUND, ...); an int, str or bytes is one line, but
        after a get of one key it is that key's value.
        """
        if isinstance(request, MemcacheRequest):
            if request.answer is not None:
                return b"" if request.quiet else request.answer + b"\r\n"
            if isinstance(value, Meta):
                return encode_meta(value, request.verb, _flags(request), request.quiet)
            if request.is_silent:
                return b""
        return encode_reply(value, request)

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield the blocks of a get whose handler yields Values, then END."""
        quiet = isinstance(request, MemcacheRequest) and request.quiet
        for item in items:
            if not isinstance(item, Value):
                raise TypeError(
                    f"a generator that answers a get yields Value, not {type(item).__name__}"
                )
            if not quiet:
                yield encode_value(item)
        if not quiet:
            yield b"END\r\n"

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error line, or b"" after ``noreply``."""
        if isinstance(request, MemcacheRequest) and request.is_silent:
            return b""
        if isinstance(error, UnknownCommand):
            return b"ERROR\r\n"
        if isinstance(error, UsageError) and error.problem in ("missing", "surplus"):
            return b"ERROR\r\n"
        prefix = b"SERVER_ERROR " if isinstance(error, ServerError) else b"CLIENT_ERROR "
        return prefix + one_line(str(error)) + b"\r\n"


def _flags(request: Request) -> Flags:
    found = request.flags if isinstance(request, MemcacheRequest) else None
    return Flags() if found is None else found
