"""The mechanisms by which clients log in to both servers: PLAIN (RFC 4616) and LOGIN. Pure."""

from __future__ import annotations

import base64

from linepool import Answers, Secret

MECHANISMS = "PLAIN LOGIN"
_PROMPTS = ("VXNlcm5hbWU6", "UGFzc3dvcmQ6")  # "Username:" and "Password:"; LOGIN has no RFC


class UnknownMechanismError(Exception):
    """The client has named another mechanism."""


def step(mechanism: str, initial: Secret | None, answers: Answers) -> str | tuple[str, Secret]:
    """Return what to ask the client next, in base64, or the name and the password that it has given.

    Args:
        mechanism: As the client has written it.
        initial: The response that came with the command, in base64; "=": an empty one.
        answers: The responses that came after it.

    Raises:
        UnknownMechanismError: There is no such mechanism.
        ValueError: A response is not base64, or not what the mechanism has.
    """
    given = [*answers]
    if initial is not None:
        given.insert(0, Secret("") if initial == "=" else initial)
    name = mechanism.upper()
    if name == "PLAIN":
        return _plain(_text(given[0])) if given else ""
    if name == "LOGIN":
        return (
            (_text(given[0]), Secret(_text(given[1]))) if len(given) > 1 else _PROMPTS[len(given)]
        )
    raise UnknownMechanismError


def _plain(text: str) -> tuple[str, Secret]:
    acts_for, user, password = text.split("\0")
    if acts_for not in ("", user):
        raise ValueError("no user may act for another one")
    return user, Secret(password)


def _text(response: Secret) -> str:
    return base64.b64decode(response.reveal(), validate=True).decode()
