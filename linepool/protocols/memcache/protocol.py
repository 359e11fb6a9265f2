"""memcached's text protocol: options and replies. parser.py reads the requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from linepool.errors import ClientError, ReplyError, ServerError, UnknownCommand, UsageError
from linepool.protocols.base import SKIPPED, Bad, Builtin, Request
from linepool.protocols.memcache.commands import BUILTINS, LOG_IN, LOGIN
from linepool.protocols.memcache.meta import Flags, Meta, encode_meta
from linepool.protocols.memcache.parser import PARSERS, MemcacheParser, MemcacheRequest
from linepool.protocols.memcache.replies import GETS, Value, encode_reply, encode_value
from linepool.protocols.text import one_line


class Memcache(MemcacheParser):
    """memcached's text protocol.

    Args:
        version: What ``version`` and ``stats`` return. Clients read three numbers from it, and some of
            them fail if anything follows.
        max_multiget_bytes: Limit of the line of a get. Other lines may have 2048 bytes.
    """

    ignores_case = False
    public_builtins: ClassVar[frozenset[str]] = frozenset({LOG_IN})
    line_end = b"\r\n"
    supplies: ClassVar[Mapping[Any, Callable[[Request, Any], object]]] = {
        Flags: lambda request, _conversation: _flags(request)
    }

    def __init__(self, *, version: str = "1.6.45", max_multiget_bytes: int = 1024 * 1024) -> None:
        self.version = version
        self.max_multiget_bytes = max_multiget_bytes

    def builtins(self) -> Iterable[Builtin]:
        """version, verbosity, mn and quit."""
        return BUILTINS

    def login_builtins(self) -> Iterable[Builtin]:
        """What a ``set`` is before the client has logged in, as in memcached."""
        return LOGIN

    def locked_error(self, request: Request | None) -> ReplyError:
        """Return memcached's error for a command before the log-in."""
        return ClientError("unauthenticated")

    def login_error(self) -> ReplyError:
        """Return memcached's error for a log-in with a wrong password."""
        return ClientError("authentication failure")

    def _before_login(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad | None:
        """Return the log-in of a client that has yet to log in, or the error for another command.

        A data block belongs to its command all the same.
        """
        parse = PARSERS.get(words[0]) if words else None
        found = parse(self, line, words, begin) if parse is not None else SKIPPED
        if found is None:
            return None
        if isinstance(found, MemcacheRequest) and found.verb == b"set" and found.body is not None:
            found.quiet, found.command = False, self.commands[LOG_IN.encode()]
            return found
        return Bad(self.encode_error(self.locked_error(None), None), close=False)

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
        """Yield the blocks of a get whose handler yields Values, then END.

        What another handler yields is bytes, which are sent as they are.
        """
        quiet = isinstance(request, MemcacheRequest) and request.quiet
        if request.verb not in GETS:
            yield from (part for part in map(_bytes, items) if not quiet)
            return
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


def _bytes(item: object) -> bytes:
    if not isinstance(item, bytes):
        raise TypeError(
            f"a generator that answers another command than a get yields bytes, not {type(item).__name__}"
        )
    return item


def _flags(request: Request) -> Flags:
    found = request.flags if isinstance(request, MemcacheRequest) else None
    return Flags() if found is None else found
