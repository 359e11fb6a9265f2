"""The data block of a dialogue's command, while its lines arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from attrs import Factory, define, field

from linepool.errors import ReplyError
from linepool.protocols.base import Request


@define
class RefusedBlock(Request):
    """A command whose block has come to its end, and is not what it may be; its handler is not run.

    Attributes:
        error: Its reply.
    """

    error: ReplyError = field(kw_only=True)


@define
class Block:
    """A block that ends with a line of one dot.

    Attributes:
        words: The command and its words.
        parts: What has arrived, dots removed; empty if it is too large.
        size: Of all that has arrived in bytes, dropped parts included.
        is_inside_line: The next bytes continue a line.
        has_lone: A line holds a lone CR or LF.
    """

    words: list[bytes]
    parts: list[bytes] = Factory(list)
    size: int = 0
    is_inside_line: bool = False
    has_lone: bool = False

    def add(self, line: bytes, ending: bytes, most: int) -> None:
        """Add a line, or a part of one without its ending; drop all of it beyond ``most`` bytes."""
        if b"\n" in line or b"\r" in line:
            self.has_lone = True
        data = line + ending
        if not self.is_inside_line and data.startswith(b"."):
            data = data[1:]
        self.is_inside_line = not ending
        self.size += len(data)
        if self.size <= most:
            self.parts.append(data)
        else:
            self.parts.clear()

    @property
    def data(self) -> bytes:
        """What has arrived."""
        return b"".join(self.parts)

    def request(self, command: Any, error: ReplyError | None) -> Request:
        """Return the request that is complete with this block, or has this error because of it."""
        verb, *words = self.words
        line = b" ".join(self.words)
        if error is not None:
            return RefusedBlock(verb, words, command, line=line, error=error)
        return Request(verb, words, command, self.data, line=line)

    def facts(self) -> dict[str, object]:
        """Return all but the data, for a dump."""
        return {
            "block": as_text(self.words),
            "body": sum(map(len, self.parts)),
            "size": self.size,
            "inside": self.is_inside_line,
            "lone": self.has_lone,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any], data: bytes) -> Self:
        """Return the block of which these are the ``facts`` and the data."""
        words, size = as_bytes(facts["block"]), facts.get("size", 0)
        return cls(words, [data], size, facts.get("inside", False), facts.get("lone", False))


def as_text(words: list[bytes]) -> list[str]:
    """Return words as JSON holds them."""
    return [word.decode("latin-1") for word in words]


def as_bytes(words: list[str]) -> list[bytes]:
    """Return the words that ``as_text`` has returned the text of."""
    return [word.encode("latin-1") for word in words]
