"""The errors of a client that are not replies; those that are stand in ``linepool.errors``."""

from __future__ import annotations

from linepool.errors import LinepoolError


class ConnectionFailed(LinepoolError, ConnectionError):  # noqa: N818 - named like RequestTimeout
    """No server could be reached, or a connection ended before the reply was complete.

    Attributes:
        was_sent: Whether the request was sent, so that it may have been run.
    """

    def __init__(self, text: str, *, was_sent: bool = False) -> None:
        super().__init__(text)
        self.was_sent = was_sent


class CallTimeout(LinepoolError, TimeoutError):  # noqa: N818 - named like RequestTimeout
    """The reply did not come in time, or the server says that it would not.

    Attributes:
        was_sent: Whether the request was sent, so that it may have been run.
    """

    def __init__(self, text: str, *, was_sent: bool = False) -> None:
        super().__init__(text)
        self.was_sent = was_sent


class UnexpectedReply(LinepoolError, ValueError):  # noqa: N818 - named like RequestTimeout
    """A reply is not what the function's return annotation says: the server runs other code."""
