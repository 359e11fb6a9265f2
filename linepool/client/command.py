"""A command as the module that ``linepool stub`` prints knows it: by name and type, without its handler."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from linepool.idempotent import mark

R = TypeVar("R")


class Command(Generic[R]):
    """A command of a server; ``call`` takes it in place of a name.

    An argument that is ``UNSET`` is left out.

    Args:
        name: The command's name, one word.
        returns: The type of its result; of a stream, a list of the values' type.
        idempotent: To run it twice does no more than to run it once.
        block: The argument that is sent as a data block; "": none is.
    """

    def __init__(
        self, name: str, returns: Any, *, idempotent: bool = False, block: str = ""
    ) -> None:
        self.name = name
        self.returns = returns
        self.block = block
        if idempotent:
            mark(self)
