"""What a handler asks its client in the middle of a command, and what the client has answered. Pure."""

from __future__ import annotations

from linepool.session import Secret


class Ask:
    """A question to the client: the command goes on with its answer, which is the next line.

    A handler returns it in a protocol that has commands of several steps (``Dialogue``). It is then run
    again from its beginning, with one more of its ``Answers``, in this worker or in another one.

    Args:
        question: The line that the client is sent, without its ending: ``334 VXNlcm5hbWU6``.
    """

    __slots__ = ("question",)

    def __init__(self, question: str) -> None:
        self.question = question

    def __repr__(self) -> str:
        return f"Ask({self.question!r})"


class Answers(tuple[Secret, ...]):
    """Annotate a parameter with it to get the client's answers so far, without their line endings.

    Each is a ``Secret``: it is never logged. The first time that a command's handler is run there are none.
    """

    __slots__ = ()
