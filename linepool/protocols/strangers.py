r"""Clients of another protocol: HTTP, TLS and the PROXY header of a load balancer. Pure: no I/O, no clock.

A web page can have a browser send an HTTP request to any port, with lines of the page's choice in its
body, so none of it may be executed. A TLS client waits for an answer that a plain-text server never
gives. Behind an unexpected PROXY header, every reply would answer the request before it.

Their first line always gives them away, so only the beginning of a connection is examined, until its
first line that is not blank is complete. The bytes are not held back meanwhile: no request of a line
protocol is complete before its line is, and another protocol must not wait for a line's end.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HTTP = "HTTP"
TLS = "TLS hello"
PROXY = "PROXY header, which is not expected: set proxy_from to the proxy's address, or turn it off there"

_KEPT_BYTES = 127  # of each end of a first line that is incomplete
MOST_KEPT_BYTES = 2 * _KEPT_BYTES
# A record of a TLS handshake (RFC 8446, 5.1), or a hello in the format of SSL 2 (RFC 5246, E.2); a
# PROXY header (haproxy.org, proxy-protocol.txt). The signature of version 2 continues with "\r\nQUIT\n",
# but no client of a text protocol begins with what comes before that.
_NO_TEXT = re.compile(
    rb"""\s*(?:(?P<tls>\x16\x03|[\x80-\xff].\x01(?:\0\x02|\x03[\0-\x04]))
    |(?P<proxy_1>PROXY[ ](?:TCP[46]|UNKNOWN)\b))
    |(?P<proxy_2>\r\n\r\n\0)""",
    re.DOTALL | re.VERBOSE,
)
_LEADING_BLANKS = 5  # that may begin that signature
_HTTP_VERSION = re.compile(rb"HTTP/[0-9]+(?:\.[0-9]+)?", re.IGNORECASE)
_TARGET = re.compile(rb"/|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_METHODS = {
    *(b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"),
}


class FirstBytes:
    """The beginning of what a client sends, up to the end of its first line.

    Attributes:
        kept: What decides together with the bytes that come next, ``MOST_KEPT_BYTES`` at most.
    """

    def __init__(self, kept: bytes = b"") -> None:
        self.kept = kept

    def reason(self, data: bytes, is_command: Callable[[bytes], object]) -> str | None:
        """Return why the client that has sent this too is to be refused.

        Args:
            data: The bytes that come next, cut anywhere.
            is_command: Whether the server has a command of a name.

        Returns:
            "" if the client is not to be refused; None: more bytes are needed to know.
        """
        begin = self.kept + data
        if found := _NO_TEXT.match(begin):
            return TLS if found.lastgroup == "tls" else PROXY
        line, ending, _ = begin.lstrip().partition(b"\n")
        if ending:
            may_be = b"/" in line or b":" in line  # most commands have neither
            return HTTP if may_be and is_http(_ends(line), is_command) else ""
        if _has_path(line, is_command):
            return HTTP  # however the line ends
        self.kept = _ends(line) or begin[:_LEADING_BLANKS]
        return None


def _ends(line: bytes) -> bytes:
    """Return what is known of a line in any case: without its middle, if it is long."""
    return line if len(line) <= MOST_KEPT_BYTES else line[:_KEPT_BYTES] + line[-_KEPT_BYTES:]


def is_http(line: bytes, is_command: Callable[[bytes], object] = lambda _: False) -> bool:
    """Whether a line is the first one of an HTTP request (RFC 9112, 3), or its ``Host:`` line.

    ``is_command`` says whether the server has a command of a name: a request line without a version
    (HTTP/0.9) and ``Host:`` may be commands.
    """
    words = line.split()
    if len(words) > 2 and _HTTP_VERSION.fullmatch(words[-1]):
        return len(words) == 3 or _TARGET.match(words[1]) is not None
    if not words or is_command(words[0]):
        return False
    return words[0][:5].upper() == b"HOST:" or _has_path(line, is_command)


def _has_path(line: bytes, is_command: Callable[[bytes], object]) -> bool:
    """Whether a line begins with a method of HTTP, which is not a command, and a path or URL."""
    words = line[:_KEPT_BYTES].split(None, 2)
    if len(words) < 2 or words[0] not in _METHODS or is_command(words[0]):
        return False
    return _TARGET.match(words[1]) is not None
