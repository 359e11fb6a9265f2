"""The log-in with which each connection of a client begins, if its server wants one."""

from __future__ import annotations

from linepool.client.core import Core, Kind, ProtocolError
from linepool.client.endpoint import Wire
from linepool.client.errors import CallTimeout, LoginRefused
from linepool.errors import ClientError, UnknownCommand

_USER_OF_REDIS = "default"


class Credentials:
    """A user and a password; the password is in nothing that is printed.

    Attributes:
        user: The user's name.
    """

    __slots__ = ("_password", "user")

    def __init__(self, user: str, password: str) -> None:
        self.user = user
        self._password = password

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ***)"

    async def log_in(self, wire: Wire, core: Core, name: str, deadline: float) -> None:
        """Log in on a new connection.

        Args:
            wire: Its socket.
            core: Its bytes.
            name: The server's address.
            deadline: When to give up.

        Raises:
            LoginRefused: The server says that user or password are wrong.
            ServerError: It could not find out.
            OSError: The connection has failed; TimeoutError at the deadline.
        """
        await wire.send(core.log_in(self.user, self._password), deadline)
        try:
            while (event := core.reply()) is None:
                core.feed(await wire.recv(deadline))
        except ProtocolError as error:
            raise ConnectionError(str(error)) from None
        kind, value = event
        if kind is Kind.REFUSAL:
            raise value
        if kind is Kind.ERROR:
            if isinstance(value, ClientError | UnknownCommand):
                raise LoginRefused(f"{name} refuses the log-in of {self.user!r}: {value}")
            if isinstance(value, CallTimeout):
                value.was_sent = False  # the call was not
            raise value


def credentials_of(user: str | None, password: str | None, protocol: str) -> Credentials | None:
    """Return a client's options as credentials, or None: there are none.

    Raises:
        ValueError: One of them is missing, or is not text.
    """
    if user is None and password is not None and protocol == "resp":
        user = _USER_OF_REDIS
    if user is None and password is None:
        return None
    if not isinstance(user, str) or not isinstance(password, str):
        what = "user" if user is None or not isinstance(user, str) else "password"
        raise ValueError(f"user and password belong together, and are str: see {what}")  # noqa: TRY004
    return Credentials(user, "".join(password))
