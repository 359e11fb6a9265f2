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

    Attributes:
        code: What stands for the error where the protocol has codes: a word (RESP), a number
            (JSON-RPC, dialogues); None: the protocol's own choice for the kind of error.
        data: More about it, for protocols that can carry it (JSON-RPC); any JSON value.
    """

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
        problem: What is wrong with them: ``missing``, ``surplus``, ``value`` or ``option``.
        parameter: The parameter that a wrong value was meant for, or that is missing; else "".
        usage: The command with its words, as HELP shows it; "" for unknown commands.
    """

    def __init__(self, text: str, problem: str, parameter: str = "") -> None:
        super().__init__(text)
        self.problem = problem
        self.parameter = parameter
        self.usage = ""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} Usage: {self.usage}" if self.usage else text


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
