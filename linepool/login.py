"""What logs a client in, as handlers are given it. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable


class Login:
    """Logs the client of this connection in, by the app's ``authenticate`` function.

    A handler that asks for it by annotation is a log-in command of its own, for a protocol that has none or
    one of another form.

    Args:
        check: Called with a user's name and password; None: the app has no such function.
    """

    def __init__(self, check: Callable[[str, str], None] | None) -> None:
        self._check = check

    @property
    def is_required(self) -> bool:
        """Whether the app has a function for it, so that clients have to log in."""
        return self._check is not None

    def __call__(self, user: str, password: str) -> None:
        """Set ``session.user`` if the password is right.

        Raises:
            ClientError: It is not, or the client has failed too often; that is the reply then.
        """
        if self._check is None:
            raise RuntimeError("the app has no function for log-ins: @app.authenticate")
        self._check(user, password)
