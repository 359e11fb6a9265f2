"""The line protocol in the compiled core does what it does in pure Python."""

import secrets
from functools import partial
from unittest import mock

import pytest

from linepool import core

if not core.compiled:
    pytest.skip(f"there is no compiled core: {core.why_pure}", allow_module_level=True)

from linepool.conversation import Conversation
from linepool.worker.core_connection import CoreConnection
from tests.unit.core_cases import (
    BEFORE_WORD,
    FAILURES,
    LOG_IN,
    LONG_VERB,
    VALUES,
    VARIANTS,
    WORDS,
    case,
    make_app,
)
from tests.unit.core_twins import Twin, twins_of

CASES = 200  # of each variant

DIALOGUES = [
    [b"ADD 1 2\n"],
    [b"ADD 1 2\nECHO x\r\nFAIL value\nCOUNT\n"],
    [b'ECHO "a b"\nADD', b" 4 5\n", b"COUNT\nCOUNT"],
    [b"ADD 1 2\nADD 1 2\nECHO 'q'\n"],
    [b"ADD 1 2\nQUIT\nADD 1 2\n", b"ADD 1 2\n"],
    [b"GET / HTTP/1.1\r\n"],
    [b"ADD 1 2\n" * 5000],
    [b"ADD 1 2\n" * 2048 + b"'ADD 1 2\n" * 5],  # more than a chunk
    [b"ECHO " + b"x" * 8000 + b"\n"] * 20,
    [b"ECHO " + b"x" * 8000 + b"\n" + b"VALUE list\n" * 200] * 3,
    [b"BIG 70000\nCOUNT\nBIG 70000\n" * 20],
    [b"GEN 300\r\nCOUNT\nGEN 2\nCOUNT\n" * 5],
    [b"\xff\xfd\x01ADD 1 2\r\n", b"\xff\xfd\x01", b"ADD 1 2\r\nADD 1 2\r\n"],
]

TAKEN = [  # by the core alone, the handler's call included
    *(
        b"ADD 1 2",
        b"add 1 2",
        b"Add -7 0007",
        b"sum \t 1\v2  ",
        b" ADD 1 -0",
        b"ADD 1 " + b"9" * 18,
    ),
    *(
        b"ECHO x",
        b"ECHO \xc3\xa9",
        b"ECHO a/b:c",
        b"ECHO \xc2\x85",
        b"RAW \x80\x7f",
        b"ECHO " + b"y" * 8187,
    ),
    *(
        b"MUL 1.5",
        b"MUL 1e3 -.5",
        b"MUL 1e999",
        b"FLAG true",
        b"FLAG 0",
        b"OPT",
        b"OPT 1",
        b"OPT 1 x y 0",
    ),
    *(
        b"COUNT",
        b"MAYBE",
        b"MAYBE 1",
        b"LOGIN me",
        b"MIXED 1",
        b"MIXED 1 x",
        b"CONTEXT 3",
        b"NOTE text",
        b"\xc3\xa9",
    ),
    *(LONG_VERB.encode(), b"VALUE none", b"VALUE nan", b"VALUE max", b"VALUE min", b"BIG 100000"),
    *(b"MANY 1", b"MANY 1 2", b"MANY 1 2 3"),
    *(b"@ ADD 1 2", b"@i=7 ADD -7 0007", b"@\tECHO x", b"@i=" + b"x" * 32 + b" ECHO \xc3\xa9"),
    *(
        b"@t=999999999 RAW \x80\x7f",
        b"@t=60000,i=a.b_- COUNT",
        b"@i=1,i=2 FLAG true",
        b"@i=1,t=9000,r=a.B_9- ADD 1 2",
        b"@r=" + b"x" * 32 + b" ECHO x",
        b"@ VALUE none",
    ),
    *(b"@i=3 VALUE max", b"@ VALUE min", b"@ VALUE breaks", b"@ BIG 100000", b"@i=4 LOGIN me"),
]
CONCLUDED = [  # the core calls the handler; Python makes the reply
    *(
        b"VALUE " + name
        for name in VALUES
        if name not in b"none nan tiny max min rawend close".split()
    ),
    *(b"FAIL " + name for name in FAILURES),
    b"FAILSESSION",
    *(b"VERB", b"which"),
    *(b"@i=5 MUL 1.5", b"@ VALUE list", b"@ VALUE over", b"@ VALUE surrogate", b"@i=6 FAIL client"),
    *(
        b"@ ECHO \\",
        b"@ ECHO \x7f",
        b"@ VALUE raw",
        b"@i=7,t=9999 VALUE dict",
        b"@i=7,r=a-1 FAIL client",
    ),
]
ASKED = [  # the core has the conversation answer
    *(
        b"ADD +5 1",
        b"ADD 1_0 1",
        b"ADD 1 " + b"9" * 19,
        b"ADD -- 1",
        b"ADD 1 \xd9\xa3",
        b"ADD 1",
        b"ADD 1 2 3",
    ),
    *(b"ECHO \xc3", b"ECHO \x80", b"MUL 1_0", b"MUL nan", b"MUL inf", b"MUL ."),
    *(
        b"MUL 0." + b"3" * 60,
        b"FLAG yes",
        b"FLAG TRUE",
        b"FLAG maybe",
    ),
    *(b"NAMED 1 b 2", b"ODD RED", b"WRITE x", b"WIDE"),
    *(b"@i=8 ADD 1", b"@ ADD x 1", b"@ NAMED 1 b 2"),
]
DECLINED = [  # Python reads it
    *(
        b'ECHO "x"',
        b"ECHO it's",
        b"ECHO a\0",
        b"ECHO \xff\xf1x",
        b"ECHO a\rb",
        b"NOSUCH 1",
        b"PUT k 0\r\n",
    ),
    *(
        b"SAY a  b",
        b"PUSH x",
        b"PINNED",
        b"ECHO " + b"y" * 8188,
        b" " * 8193,
        b"\xc3\x89x",
        b"l" * 70 + b"x",
    ),
    b"WIDE" + b" 1" * 26,
    *(b"@", b"@ ", b"@i=7", b"@i=7 ", b"@x ADD 1 2", b"@Q ADD 1 2", b"@i ADD 1 2", b"@i= ADD 1 2"),
    *(b"@i=1, ADD 1 2", b"@, ADD 1 2", b"@t=0 ADD 1 2", b"@t= ADD 1 2", b"@t=1234567890 ADD 1 2"),
    *(
        b"@i=" + b"x" * 33 + b" ADD 1 2",
        b"@i=\xc3\xa9 ADD 1 2",
        b"@i=1,,t=5 ADD 1 2",
        b"@i=1,r=a/b ADD 1 2",
        b"@r=" + b"x" * 33 + b" ADD 1 2",
        b"@i=1,p=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ADD 1 2",
        b"@j ADD [1,2]",
    ),
    *(
        b"@" + b",".join([b"i=" + b"x" * 32] * 4) + b" ADD 1 2",
        b"@ NOSUCH",
        b" @ ADD 1 2",
        b"@\xffADD",
    ),
]


@pytest.fixture(scope="module")
def twins():
    with twins_of(partial(make_app, "batches")) as twins:
        yield twins


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("accepts", [False, True])
@pytest.mark.parametrize("pieces", DIALOGUES)
def test_a_dialogue_is_the_same_in_both(twins, pieces, accepts, early):
    twins.run(pieces, accepts=accepts, early=early)


@pytest.mark.parametrize("verb", BEFORE_WORD)
def test_every_word_means_the_same_in_both(twins, verb):
    for eol in (b"\n", b"\r\n"):
        twins.run([b"COUNT\n", *(verb + word + eol for word in WORDS)], accepts=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_whatever_a_client_sends_is_answered_alike(variant):
    seed = secrets.token_hex(4)
    with twins_of(partial(make_app, variant)) as twins:
        for number in range(CASES):
            one = case(seed, number, variant)
            try:
                twins.run(one.pieces, accepts=one.accepts, early=one.early)
            except AssertionError as error:
                what = f"case({seed!r}, {number}, {variant!r})"
                raise AssertionError(f"{what}: {error}") from None


def taken_by(twin: Twin, data: bytes, first: bytes = b"COUNT\n") -> tuple[int, int, int]:
    """Return how often Python's ``conclude``, ``answer`` and ``take_over`` are called for some bytes."""
    twin.connect(first)
    with (
        mock.patch.object(
            Conversation, "conclude", autospec=True, side_effect=Conversation.conclude
        ) as concludes,
        mock.patch.object(
            Conversation, "answer", autospec=True, side_effect=Conversation.answer
        ) as answers,
        mock.patch.object(
            CoreConnection, "take_over", autospec=True, side_effect=CoreConnection.take_over
        ) as takes,
    ):
        twin.send(data)
    return concludes.call_count, answers.call_count, takes.call_count


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("lines", "calls"),
    [
        (TAKEN, (0, 0, 0)),
        (CONCLUDED, (1, 0, 0)),
        (ASKED, (0, 1, 0)),
        # Python ends the connection, or sends the parts of the reply:
        ([b"VALUE rawend", b"VALUE close", b"GEN 3", b"GENFAIL 3", b"GENSESSION"], (1, 0, 1)),
    ],
    ids=["taken", "concluded", "asked", "ended"],
)
def test_the_core_takes_what_is_plain(twins, lines, calls, eol):
    for line in lines:
        assert (line, taken_by(twins.core, line + eol)) == (line, calls)


def test_the_core_serves_who_has_logged_in():
    with twins_of(partial(make_app, "login")) as twins:
        for line in (b"ADD 1 2\n", b"COUNT\n", b"ADD 1 2\nADD 3 4\n"):
            assert taken_by(twins.core, line, LOG_IN) == (0, 0, 0)
            assert taken_by(twins.core, line, b"HELLO x\n")[1] == line.count(b"\n")
        assert taken_by(twins.core, b"ADD 1 2\nLOGOUT\nADD 1 2\n", LOG_IN) == (0, 1, 1)
        pieces = [LOG_IN, b"ADD 1 2\nLOGOUT\nADD 1 2\n" + LOG_IN + b"ADD 1 2\n", b"ADD 1 2\n"]
        twins.run(pieces, accepts=True)


@pytest.mark.parametrize("line", DECLINED)
def test_the_core_declines_what_is_not(twins, line):
    assert taken_by(twins.core, line + b"\n")[2] == 1
    twins.run([b"COUNT\n", line + b"\r\n"], accepts=True)


@pytest.mark.parametrize(
    ("data", "is_declined"),
    [
        (b"ADD 1 2\n", False),
        (b"add 1 2\r\n", False),
        (b"7 x\nADD 1 2\n", True),  # for there is no such command
        (b"ADD 1 2", True),
        (b"\nADD 1 2\n", True),
        (b" ADD 1 2\n", True),
        (b"ECHO a/b\n", True),
        (b"ECHO a:b\n", True),
        (b"ECHO x\nECHO a/b:c\n", False),
        (b"\xc3\xa9\n", True),
        (b"\x16\x03\x01\n", True),
        (b"PROXY x\n", True),
        (b"GET / HTTP/1.1\r\n", True),
    ],
)
def test_the_core_admits_only_what_is_certainly_no_other_protocol(twins, data, is_declined):
    assert taken_by(twins.core, data, first=b"")[2] == is_declined
