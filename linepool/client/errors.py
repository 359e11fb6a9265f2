"""The errors of a client that are not replies; those that are stand in ``linepool.errors``."""

from __future__ import annotations

from linepool.errors import LinepoolError


class _Unanswered(LinepoolError):  # noqa: N818 - named like RequestTimeout
    """There is no reply.

    Attributes:
        was_sent: Whether the request was sent, so that it may have been run.
        id: The call's, as in the server's log; None: the client had not begun with it.
    """

    id: str | None = None

    def __init__(self, text: str, *, was_sent: bool = False) -> None:
        super().__init__(text)
        self.was_sent = was_sent

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} (request {self.id})" if self.id and self.was_sent else text


class ConnectionFailed(_Unanswered, ConnectionError):  # noqa: N818 - named like RequestTimeout
    """No server could be reached, or a connection ended before the reply was complete.

    Attributes:
        was_sent: Whether the request was sent, so that it may have been run.
        id: The call's, as in the server's log; None: the client had not begun with it.
    """


class CallTimeout(_Unanswered, TimeoutError):  # noqa: N818 - named like RequestTimeout
    """The reply did not come in time, or the server says that it would not.

    Attributes:
        was_sent: Whether the request was sent, so that it may have been run.
        id: The call's, as in the server's log; None: the client had not begun with it.
    """


class LoginRefused(LinepoolError):  # noqa: N818 - named like RequestTimeout
    """The server refuses the client's user or password; the call was not sent, and nothing is tried again."""


class UnexpectedReply(LinepoolError, ValueError):  # noqa: N818 - named like RequestTimeout
    """A reply is not what the function's return annotation says: the server runs other code."""


def named(error: Exception, name: str) -> Exception:
    """Return an error of a call, with the call's id unless the server has given one."""
    if name and getattr(error, "id", name) is None:
        error.id = name  # type: ignore[attr-defined]
    return error
