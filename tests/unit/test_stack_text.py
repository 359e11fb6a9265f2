"""What is shown of a worker's stack: the app's calls, not those of the server below them."""

from __future__ import annotations

import pytest

from linepool import conversation, resources
from linepool.handlers.compile import CALL_FILE
from linepool.master.stack_text import of_handler, of_main_thread
from linepool.worker import evacuation, loop, streaming, worker

HEAD = "Current thread 0x0001 (most recent call first):"


def call(file: str, function: str = "f") -> str:
    """Return the line of a call."""
    return f'  File "{file}", line 3 in {function}'


BELOW = [call(loop.__file__), call(worker.__file__, "run"), call("/srv/app.py", "<module>")]
TWICE = [call("/srv/app.py", "inner"), call("/srv/app.py", "handler")]
PUSHES = [call(conversation.__file__), call(streaming.__file__), *TWICE]


@pytest.mark.parametrize(
    ("stack", "shown"),
    [
        (TWICE + BELOW, TWICE),  # called by the compiled core
        ([*TWICE, call(CALL_FILE), call(conversation.__file__), *BELOW], TWICE),
        ([*PUSHES, call(CALL_FILE), call(conversation.__file__), *BELOW], PUSHES),
        (PUSHES + BELOW, PUSHES),
        ([*TWICE, call(resources.__file__), *BELOW[1:]], TWICE),  # opens a resource
        (BELOW, BELOW[:2]),  # idle
        (TWICE, TWICE),
    ],
)
def test_a_stack_is_shown_down_to_the_handler(stack, shown):
    others = f"Thread 0x0002 (most recent call first):\n{call('/srv/other.py')}\n"
    second = f"Thread 0x0003 (most recent call first):\n{call(evacuation.__file__)}\n"
    text = "\n".join([others, second, "\n".join([HEAD, *stack]) + "\n"])

    assert of_main_thread(text) == shown
    below = [*others.splitlines(), "", HEAD, *shown]
    assert of_handler(text) == "".join(f"\n    {line}" for line in below)


def test_no_stack_is_said_to_be_none():
    assert of_main_thread("") == []
    assert "stack=none" in of_handler("")
