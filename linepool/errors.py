"""Exceptions that users of linepool raise or catch."""


class LinepoolError(Exception):
    """Base class of the errors that linepool raises on purpose."""


class SetupError(LinepoolError):
    """The app, a setting or the target is wrong; the message says what would be right.

    Raised before anything is served. The command line prints the message on one line.

    Attributes:
        is_usage: The settings are wrong, not the app.
    """

    is_usage = False


class ReplyError(LinepoolError):
    """An error that is the reply to one request; the connection stays open.

    The text is one line for the client. Control characters in it are escaped before it is sent.

    Attributes:
        code: The error code, for protocols that have them: a word (RESP) or a number (JSON-RPC,
            dialogues); None: the protocol's default for this kind of error.
        data: Any JSON value with details, for protocols that can send it (JSON-RPC).
        id: In a client: the failed request's id, as in the server's log; None: the server has given none.
    """

    id: str | None = None

    def __init__(
        self, text: str = "", *, code: str | int | None = None, data: object = None
    ) -> None:
        super().__init__(text)
        self.code = code
        self.data = data


class ClientError(ReplyError):
    """The request is wrong; in the line protocol the client reads ``CLIENT_ERROR <text>``."""


class UsageError(ClientError):
    """The arguments do not fit the handler's signature.

    Attributes:
        problem: What is wrong: ``missing``, ``surplus``, ``value`` or ``option``.
        parameter: The parameter that is missing or has a wrong value; otherwise "".
        usage: The command's usage as HELP shows it; "" for unknown commands.
    """

    def __init__(self, text: str, problem: str, parameter: str = "") -> None:
        super().__init__(text)
        self.problem = problem
        self.parameter = parameter
        self.usage = ""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} Usage: {self.usage}" if self.usage else text


class IncompleteError(ClientError):
    """A request did not arrive in its time, so its connection ends."""


class UnknownCommand(ReplyError):  # noqa: N818 - named after the reply
    """No handler has that name; in the line protocol the client reads ``ERROR <text>``."""


class ServerError(ReplyError):
    """The server failed; in the line protocol the client reads ``SERVER_ERROR <text>``."""


class NotRunError(ServerError):
    """The request was refused before its handler ran, which says nothing about the state of the app."""


class DeadlineError(ServerError):
    """A request has taken longer than its limit, or its client's deadline has passed before it was run."""

    problem = "deadline"


class LeaveNow(BaseException):
    """Raised anywhere in a worker when the server stops without waiting for in-flight requests."""


class RequestTimeout(BaseException):
    """Raised inside a handler that has run past its deadline.

    It does not derive from Exception, so that a handler's ``except Exception`` does not swallow it.
    Catch it only to clean up, then re-raise it: if the handler keeps running, its worker is killed
    after ``kill_grace``.
    """


# Why a client is refused, for the log and for its reply.
TOO_MANY = "too many connections"
TOO_MANY_FROM_ONE = "too many connections from your address"
TOO_MANY_UNFINISHED = "too many unfinished requests"
CANNOT_CONTINUE = "this connection cannot continue after a change of the server; connect again"
