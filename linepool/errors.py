"""What a user of linepool may raise or catch."""


class LinepoolError(Exception):
    """The base of every error that linepool raises on purpose."""


class SetupError(LinepoolError):
    """The app, a setting or the target is wrong; the message says what would be right.

    Raised before anything is served. The command line prints the message as one line.
    """


class ReplyError(LinepoolError):
    """An error that is the reply to one request; the connection goes on.

    The text is one line for the client. Control characters in it are escaped before it is sent.
    """


class ClientError(ReplyError):
    """The request is wrong; in the line protocol the client reads ``CLIENT_ERROR <text>``."""


class UnknownCommand(ReplyError):  # noqa: N818 - it names the reply, not a failure of ours
    """No handler has that name; in the line protocol the client reads ``ERROR <text>``."""


class ServerError(ReplyError):
    """The server could not do it; in the line protocol the client reads ``SERVER_ERROR <text>``."""


class LeaveNow(BaseException):
    """Raised in a worker wherever it is, when the server stops without waiting for requests."""


class RequestTimeout(BaseException):
    """Raised inside a handler that has run past its deadline.

    It is no Exception, so that a handler's own ``except Exception`` does not swallow it. Catch it
    only to clean up, and raise it again: a handler that goes on is killed after ``kill_grace``.
    """
