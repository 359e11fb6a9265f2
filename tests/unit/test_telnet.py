"""Telnet's commands inside the line protocol (RFC 854, RFC 860)."""

import linepool
from linepool.testing import assert_split_invariant

app = linepool.App("telnet")


@app.handler
def add(a: int, b: int) -> int:
    return a + b


def test_a_timing_mark_is_answered_ahead_of_the_next_reply():
    # Debian's telnet sends this for ^C: IAC IP, IAC DO TIMING-MARK.
    assert app.ask(b"\xff\xf4\xff\xfd\x06add 4 5\r\n") == b"\xff\xfb\x069\r\n"


def test_every_option_is_refused():
    assert app.ask(b"\xff\xfd\x01\xff\xfb\x1fadd 4 5\r\n") == b"\xff\xfc\x01\xff\xfe\x1f9\r\n"


def test_a_refusal_needs_no_answer():
    assert app.ask(b"\xff\xfe\x01\xff\xfc\x1fadd 4 5\r\n") == b"9\r\n"


def test_an_answer_to_telnet_waits_for_a_reply_and_moves_with_the_connection():
    assert_split_invariant(app, b"\xff\xfd\x06\r\nadd 1 2\r\n\xff\xfd\x01add 1 x\r\nadd 2 2\r\n")
