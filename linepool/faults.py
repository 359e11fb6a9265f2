"""What two exceptions of one cause have in common: their type, and where they were raised."""

from __future__ import annotations

import itertools
import os
import zlib
from types import TracebackType

_OWN = os.path.dirname(__file__) + os.sep
_GENERATED = "<linepool"
_ids: itertools.count[int] | None = None


def fault_of(error: BaseException) -> str:
    """Return an exception's type, the first place in the app's code, and the innermost place.

    Nothing in it comes from a client: an app has only so many faults as it has places.
    """
    places: list[tuple[str, int]] = []
    step = error.__traceback__
    while step is not None:
        places.append((step.tb_frame.f_code.co_filename, step.tb_lineno))
        step = step.tb_next
    theirs = [place for place in places if not place[0].startswith((_OWN, _GENERATED))]
    shown = dict.fromkeys([*theirs[:1], *places[-1:]])
    return " ".join(
        [type(error).__name__, *(f"{os.path.basename(file)}:{line}" for file, line in shown)]
    )


def reference(error: BaseException) -> str:
    """Return an id of eight hexadecimal digits; the first four are the same for the same fault."""
    return f"{zlib.crc32(fault_of(error).encode('utf-8', 'replace')) & 0xFFFF:04x}{os.urandom(2).hex()}"


def traceback_of_app(error: BaseException) -> TracebackType | None:
    """Return an exception's traceback from the first frame of the app's code on; the whole if it has none."""
    step = error.__traceback__
    while step and step.tb_frame.f_code.co_filename.startswith((_OWN, _GENERATED)):
        step = step.tb_next
    return step or error.__traceback__


def new_id() -> str:
    """Return an id of twelve hexadecimal digits, which no other request has, in whichever process."""
    global _ids  # noqa: PLW0603 - one per process
    if _ids is None:
        _ids = itertools.count(int.from_bytes(os.urandom(6)))
    return f"{next(_ids) & 0xFFFFFFFFFFFF:012x}"


def _begin_anew() -> None:
    global _ids  # noqa: PLW0603 - likewise
    _ids = None


os.register_at_fork(after_in_child=_begin_anew)
