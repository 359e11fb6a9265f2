"""Where the keys of a command are among its words: the key specifications of Redis 7.

A specification is written in one word, so that a table of many commands stays readable:

- ``1``: the word at this position is a key (0 is the command's name); ``1..-1``: the words from here to
  the last one; ``1..-1/2``: every other of them;
- ``#2``: the word at this position is a number, and so many keys follow it;
- ``STREAMS>1..-1%2``: behind the word STREAMS, which is looked for from position 1 (below 0: backwards,
  from the end), the first half of the words; ``?``: keys that only the command itself can find.

Behind a colon, what the command does with the keys, as Redis calls it: ``1:RW.access.update``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from linepool.errors import SetupError

_SPEC = re.compile(
    r"(?:(?P<count>#)?(?:(?P<word>[A-Z]+)>)?(?P<begin>-?\d+)"
    r"(?:\.\.(?P<last>-?\d+))?(?:/(?P<step>\d+))?(?:%(?P<limit>\d+))?|\?)"
    r"(?::(?P<flags>[A-Za-z_.]+))?\Z"
)


@frozen
class KeySpec:
    """Where some keys of a command are.

    Attributes:
        begin: The position of the first one, or from where ``word`` is looked for; None: unknown.
        last: The position of the last one, counted from the first one; below 0: from the end.
        step: From one to the next.
        limit: With 2, only the first half of the words up to ``last``, and so on; 0: all of them.
        word: The word that is in front of them; "": they begin at a fixed position.
        is_counted: The word at ``begin`` says how many follow.
        flags: What the command does with them.
    """

    begin: int | None
    last: int = 0
    step: int = 1
    limit: int = 0
    word: str = ""
    is_counted: bool = False
    flags: tuple[str, ...] = ()

    @classmethod
    def parsed(cls, text: str) -> KeySpec:
        """Return a specification that is written as above.

        Raises:
            SetupError: It is not.
        """
        match = _SPEC.match(text)
        if match is None:
            raise SetupError(
                f"keys={text!r}: write positions such as '1', '1..-1', '1..-1/2', '#2'"
            )
        flags = tuple((match["flags"] or "").split(".")) if match["flags"] else ()
        if match["begin"] is None:
            return cls(None, flags=flags)
        return cls(
            int(match["begin"]),
            int(match["last"] or 0),
            int(match["step"] or 1),
            int(match["limit"] or 0),
            match["word"] or "",
            match["count"] is not None,
            flags,
        )

    @property
    def is_fixed(self) -> bool:
        """Whether the keys are at fixed positions, up to the end of the words perhaps."""
        return self.begin is not None and not (self.word or self.is_counted or self.limit)

    def positions(self, words: Sequence[bytes]) -> range:
        """Return where the keys are among the words of a request, the command's name first.

        Raises:
            ValueError: The words do not say it.
        """
        begin = self._begin(words)
        if begin is None:
            return range(0)
        if not 0 < begin < len(words):
            raise ValueError("no key at its position")
        if self.is_counted:
            count = int(words[begin])
            if count < 0 or begin + count >= len(words):
                raise ValueError("fewer keys than announced")
            return range(begin + 1, begin + 1 + count)
        if self.last >= 0:
            last = begin + self.last
        elif self.limit > 1:
            last = begin + (len(words) - begin) // self.limit + self.last
        else:
            last = len(words) + self.last
        if last >= len(words):
            raise ValueError("a key is missing")
        return range(begin, last + 1, self.step)

    def _begin(self, words: Sequence[bytes]) -> int | None:
        """Return where the keys begin; None: they are optional, and left out."""
        if self.begin is None or not self.word:
            return self.begin
        upper = [word.upper() for word in words]
        backwards = self.begin < 0
        order = (
            range(len(words) + self.begin, 0, -1)
            if backwards
            else range(self.begin, len(words) - 1)
        )
        for at in order:
            if upper[at] == self.word.encode():
                return at + 1
        return None

    def described(self) -> dict[str, Any]:
        """Return the specification as COMMAND INFO has it, but for its flags."""
        return {
            "begin_search": self._search(),
            "find_keys": self._find(),
        }

    def _search(self) -> dict[str, Any]:
        if self.begin is None:
            return {"type": "unknown", "spec": {}}
        if self.word:
            spec: dict[str, Any] = {"keyword": self.word, "startfrom": self.begin}
            return {"type": "keyword", "spec": spec}
        return {"type": "index", "spec": {"index": self.begin}}

    def _find(self) -> dict[str, Any]:
        if self.begin is None:
            return {"type": "unknown", "spec": {}}
        if self.is_counted:
            return {"type": "keynum", "spec": {"keynumidx": 0, "firstkey": 1, "keystep": 1}}
        spec = {"lastkey": self.last, "keystep": self.step, "limit": self.limit}
        return {"type": "range", "spec": spec}


def specs_of(option: Any) -> tuple[KeySpec, ...]:
    """Return the specifications that a handler's option ``keys`` says.

    Args:
        option: Words as above with blanks between them; or the positions of the first and the last key,
            and the step.

    Raises:
        SetupError: It says something else.
    """
    if isinstance(option, str):
        return tuple(map(KeySpec.parsed, option.split()))
    try:
        first, last, step = map(int, option)
    except (TypeError, ValueError):
        raise SetupError(
            f"keys must be a text such as '1..-1', or three numbers, not {option!r}"
        ) from None
    if not first:
        return ()
    return (KeySpec(first, last - first if last > 0 else last, step),)


def simple_range(specs: Iterable[KeySpec]) -> tuple[int, int, int]:
    """Return the first and the last position and the step, as clients of older versions know keys.

    They are 0 if no key is at a fixed position.
    """
    first, last, step = 0, 0, 0
    for spec in specs:
        if not spec.is_fixed or spec.begin is None:
            continue
        if first and not (0 < last == spec.begin - 1 and step == spec.step == 1):
            continue
        first = first or spec.begin
        last = spec.begin + spec.last if spec.last >= 0 else spec.last
        step = spec.step
    return first, last, step
