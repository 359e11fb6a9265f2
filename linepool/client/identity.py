"""The id of a call, which the server's log has too."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar

from linepool import in_flight
from linepool.faults import new_id

_FORM = re.compile(r"[0-9A-Za-z._-]{1,32}")
_given: ContextVar[str] = ContextVar("linepool.client.request_id", default="")


@contextlib.contextmanager
def request_id(name: str) -> Iterator[None]:
    """Give all calls in a block an id, which servers log and errors have; for example that of a job.

    Args:
        name: 1 to 32 letters, digits, ``.``, ``_`` and ``-``.

    Raises:
        ValueError: It is something else.
    """
    if not _FORM.fullmatch(name):
        raise ValueError(
            f"a request's id must be 1 to 32 letters, digits, '.', '_' or '-', not {name!r}"
        )
    token = _given.set(name)
    try:
        yield
    finally:
        _given.reset(token)


def id_of_call() -> str:
    """Return the id of a call: the block's, that of the request that it is made for, or a new one."""
    if given := _given.get():
        return given
    if in_flight.request is not None:
        from linepool.protocols.framing import given_id  # noqa: PLC0415 - a worker has it

        if given := given_id(in_flight.line()):
            return given
    return new_id()
