"""A question of a handler that a dialogue's client has yet to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from attrs import define, field

from linepool.protocols.base import Request
from linepool.protocols.dialogue.block import as_bytes, as_text
from linepool.questions import Answers
from linepool.session import Secret

_ENDING_BYTES = len(b"\r\n")


@define
class Answered(Request):
    """A command whose handler is run again, because its client has answered a question."""

    answers: Answers = field(factory=Answers)


def answers_of(request: Request, _conversation: Any) -> Answers:
    """Return the answers that a command has got so far."""
    return request.answers if isinstance(request, Answered) else Answers()


@define
class Question:
    """An open question: the next line is its answer.

    Attributes:
        words: The command that has asked, and its words.
        answers: Those to the questions before.
    """

    words: list[bytes]
    answers: list[Secret]

    @property
    def size(self) -> int:
        """Of the answers so far in bytes, with their line endings."""
        return sum(len(one.reveal().encode()) + _ENDING_BYTES for one in self.answers)

    def facts(self) -> dict[str, object]:
        """Return all of it, for a dump."""
        return {
            "asked": as_text(self.words),
            "answers": [one.reveal() for one in self.answers],
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Return the question of which these are the ``facts``."""
        return cls(as_bytes(facts["asked"]), [*map(Secret, facts.get("answers", ()))])
