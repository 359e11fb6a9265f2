"""Dialogues: states, replies of one or several lines, and blocks that end with a dot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool import (
    Answers,
    App,
    Ask,
    Bad,
    ClientError,
    Dialogue,
    Limits,
    Protocol,
    Request,
    Rest,
    ServerError,
    Session,
    SetupError,
    body,
)
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.errors import IncompleteError
from linepool.protocols.dialogue.block import Block, RefusedBlock
from linepool.resources import Resources
from linepool.testing import assert_split_invariant


def post_office(protocol: Protocol | None = None) -> App:
    app = App(protocol=protocol or Dialogue.smtp())
    kept: list[bytes] = []

    @app.handler(to="greeted")
    def helo(name: str) -> tuple[int, str]:
        return 250, f"hello {name}"

    @app.handler(when="greeted", to="mail", otherwise="503 say HELO first")
    def mail(sender: Rest) -> None: ...

    @app.handler("DATA", when="mail", to="greeted", prompt="354 go on")
    def take(session: Session, data: bytes = body()) -> tuple[int, str]:
        kept.append(data)
        if data.startswith(b"spam"):
            raise ClientError("no spam", code=550)
        return 250, f"{len(data)} bytes"

    @app.handler
    def show() -> list[str]:
        return [repr(data) for data in kept]

    return app


def talk(app: App, *lines: str) -> list[str]:
    sent = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
    return app.ask(sent).decode().splitlines()[1:]


MAIL = ("HELO me", "MAIL <a@b>", "DATA")


def test_the_server_sends_the_first_line():
    assert post_office(Dialogue.smtp("220 hello")).ask(b"") == b"220 hello\r\n"


def test_commands_are_refused_in_other_states():
    said = talk(
        post_office(), "MAIL x", "DATA", "HELO", "HELO me", "DATA", "MAIL x", "MAIL x", "QUIT"
    )
    assert said == [
        "503 say HELO first",
        "503 Bad sequence of commands",
        "501 name is missing. Usage: HELO name:str",
        "250 hello me",
        "503 Bad sequence of commands",
        "250 OK",
        "503 say HELO first",
        "221 Bye",
    ]


def test_the_state_changes_only_on_success():
    said = talk(post_office(), *MAIL, "spam", ".", "MAIL x", "DATA", "ham", ".", "MAIL x")
    assert said[3:] == ["550 no spam", "503 say HELO first", "354 go on", "250 5 bytes", "250 OK"]


def test_a_block_ends_with_a_dot_and_dots_that_begin_lines_are_unstuffed():
    said = talk(post_office(), *MAIL, "..", ". x", "...y", " .", "", ".", "SHOW")
    assert said[2:] == ["354 go on", "250 18 bytes", r"250 b'.\r\n x\r\n..y\r\n .\r\n\r\n'"]


def test_a_command_may_follow_an_empty_block_in_a_pipeline():
    assert talk(post_office(), *MAIL, ".", "NOOP")[2:] == ["354 go on", "250 0 bytes", "250 OK"]


def test_a_command_is_refused_before_its_block():
    said = talk(post_office(), "HELO me", "MAIL x", "DATA now", "NOOP")
    assert said[2:] == ["501 too many arguments: 1 given, at most 0.", "250 OK"]


# Endings of a mail that other servers have accepted (SMTP smuggling).
SMUGGLED = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r\n\0.\r\n",
    b"\r.\n",
]


@pytest.mark.parametrize("end", SMUGGLED)
def test_nothing_but_cr_lf_dot_cr_lf_ends_a_strict_block(end):
    app = post_office()
    sent = "".join(f"{line}\r\n" for line in MAIL).encode()
    said = app.ask(sent + b"hello" + end + b"MAIL FROM:<x>\r\nDATA\r\nsmuggled\r\n.\r\nNOOP\r\n")
    assert said.count(b"354") == 1
    *_, block, noop = said.splitlines()
    assert noop == b"250 OK"
    if b"\0" not in end:
        assert block == b"554 A line ends with CR LF, and nothing else does"
        assert app.ask(b"SHOW\r\n").endswith(b"250 \r\n")


@pytest.mark.parametrize("line", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP\nNOOP\r\n", b"\r\r\n"])
def test_a_strict_line_has_no_other_ending(line):
    said = post_office().ask(line + b"\r\nNOOP\r\n").splitlines()
    assert said[1].startswith((b"554", b"500"))
    assert said[-1] == b"250 OK"


def test_a_lenient_dialogue_accepts_both_line_endings():
    said = post_office(Dialogue()).ask(b"HELO a\nMAIL b\r\n\nDATA\n.x\n..\n.\nNOOP\n")
    assert said.splitlines()[3:] == [b"354 go on", b"250 6 bytes", b"250 OK"]


def test_a_too_large_block_is_read_to_its_end_and_the_connection_stays_open():
    app = post_office()
    for row in (b"x" * 60 + b"\r\n", b"y" * 100_000):
        protocol = app.freeze(Limits(max_body_bytes=1000)).open_protocol()
        protocol._block = Block([b"DATA"])  # type: ignore[attr-defined]
        most = 0
        for _ in range(100):
            protocol.feed(row)
            assert protocol.next_request() is None
            most = max(most, len(protocol.dump()))
        protocol.feed(b"\r\n.\r\nNOOP\r\n")
        bad, noop = protocol.next_request(), protocol.next_request()
        assert isinstance(bad, RefusedBlock)
        assert protocol.encode_error(bad.error, bad) == b"552 Message too large\r\n"
        assert isinstance(noop, Request)
        assert most < 6000


@pytest.mark.parametrize("text", ["spam", "x" * 40, "a\nb"], ids=["handler", "size", "newline"])
def test_a_refused_block_leads_to_a_state_of_its_own(text):
    app = App(protocol=Dialogue.smtp(), max_body_bytes=30)
    seen = []

    @app.handler(to="mail")
    def mail() -> None: ...

    @app.handler(when="mail", to="done", fails_to="failed")
    def data(message: bytes = body()) -> None:
        seen.append(message)
        if message.startswith(b"spam"):
            raise ClientError("no spam", code=550)

    @app.handler(when="failed")
    def state(session: Session) -> str:
        return str(session["state"])

    service = app.freeze(Limits(max_body_bytes=30))
    conversation = Conversation(service, Session(), Resources())
    conversation.feed(f"MAIL\r\nDATA x\r\nMAIL\r\nDATA\r\n{text}\r\n.\r\nSTATE\r\n".encode())
    said = b"".join(answers(conversation)).decode().splitlines()

    assert said[1].startswith("501")
    assert said[-1] == "250 failed"
    assert len(seen) == (text == "spam")


@pytest.mark.parametrize("sent", [b"NOOP" + b"x" * 10 + b"\r\nNOOP\r\n", b"x" * 12])
def test_a_line_that_is_too_long_closes_whether_its_end_has_arrived_or_not(sent):
    protocol = post_office().freeze(Limits(max_line_bytes=10)).open_protocol()
    protocol.feed(sent)
    assert protocol.next_request() == Bad(b"500 Line too long\r\n", close=True)
    assert protocol.next_request() is None


@pytest.mark.parametrize("rest", [b"x" * 2000 + b"\r\nNOOP\r\n", b"x" * 9000])
def test_a_long_line_may_arrive_in_parts(rest):
    limits = Limits(max_line_bytes=10_000)
    protocol = post_office().freeze(limits).open_protocol()
    protocol.feed(b"HELO " + b"x" * 5000)
    assert protocol.next_request() is None
    protocol.feed(rest)

    found = protocol.next_request()

    if b"\n" in rest:
        assert isinstance(found, Request)
        assert len(found.words[0]) == 7000
        assert protocol.next_request() is not None
    else:
        assert found == Bad(b"500 Line too long\r\n", close=True)


@pytest.mark.parametrize(
    "code", [5, -250, 99999, True, 2.5, "", "250\r\n550", b"25", None, object()]
)
def test_what_is_not_a_code_is_not_sent_as_one(code):
    app = post_office()
    app.handler("REPLY")(lambda: (code, "text"))

    @app.handler
    def fail() -> None:
        raise ClientError("text", code=code)

    reply, failure = talk(app, "REPLY", "FAIL")

    assert reply.startswith("451 internal error, id ")
    assert failure == "554 text"


def test_enhanced_codes_are_in_the_replies_of_the_protocol():
    app = post_office(Dialogue.smtp(enhanced_codes=True, error_replies={"large": "552 5.2.3 no"}))
    assert talk(app, "FOO", " ", "HELO", "DATA", "NOOP", "QUIT") == [
        "500 5.5.1 Command not recognized",
        "500 5.5.1 Command not recognized",
        "501 5.5.4 name is missing. Usage: HELO name:str",
        "503 5.5.1 Bad sequence of commands",
        "250 2.0.0 OK",
        "221 2.0.0 Bye",
    ]


def test_too_many_errors_close_the_connection():
    said = talk(post_office(Dialogue.smtp(max_errors=2)), "A", "MAIL x", "HELO", "NOOP")
    assert said == ["500 Command not recognized", "503 say HELO first", "421 Too many errors"]


@pytest.mark.parametrize(
    ("protocol", "code"),
    [
        (Dialogue(), "421"),
        (Dialogue.smtp(enhanced_codes=True), "421 4.3.0"),
        (Dialogue.pop3(), "-ERR"),
    ],
)
def test_a_server_that_ends_a_connection_does_not_say_that_the_request_is_wrong(protocol, code):
    assert protocol.encode_error(ServerError("busy"), None) == f"{code} busy\r\n".encode()
    assert protocol.encode_error(IncompleteError("late"), None) == f"{code} late\r\n".encode()
    assert not protocol.encode_error(ClientError("you"), None).startswith(b"421")


def test_replies_have_one_line_or_several():
    app = App(protocol=Dialogue())
    values = iter([None, "text", (251, "one"), (252, ["a", "b", "c"]), ["x", "y"], 5])
    app.handler("GIVE")(lambda: next(values))
    assert talk(app, *["GIVE"] * 6) == [
        *("250 OK", "250 text", "251 one", "252-a", "252-b", "252 c", "250-x", "250 y", "250 5")
    ]


def test_a_reply_cannot_be_forged():
    app = App(protocol=Dialogue())
    app.handler("GIVE")(lambda: "a\r\n250 b")

    @app.handler
    def fail() -> None:
        raise ClientError("a\r\n250 b")

    first, second = talk(app, "GIVE", "FAIL")
    assert first.startswith("451 internal error")
    assert second == "554 a\\x0d\\x0a250 b"


def test_pop3_replies_end_with_a_dot():
    app = App(protocol=Dialogue.pop3())

    @app.handler
    def names() -> tuple[str, list[str]]:
        return "2 names", ["ann", ".bob"]

    @app.handler
    def mail() -> bytes:
        return b"a\r\n.\r\nb"

    @app.handler
    def count() -> Iterator[int]:
        yield from range(2)

    @app.handler
    def fail(how: str = "") -> None:
        raise ClientError("busy", code="IN-USE")

    said = talk(app, "NAMES", "MAIL", "COUNT", "FAIL", "FAIL a b", "NO", "NOOP", "QUIT")
    assert said == [
        *("+OK 2 names", "ann", "..bob", ".", "+OK", "a", "..", "b", ".", "+OK", "0", "1", "."),
        "-ERR [IN-USE] busy",
        "-ERR too many arguments: 2 given, at most 1. Usage: FAIL [how:str]",
        *("-ERR Command not recognized", "+OK", "+OK bye"),
    ]


def test_a_state_that_no_command_leads_to_is_refused_at_the_start():
    app = App(protocol=Dialogue())
    app.handler("A", when="nowhere")(lambda: None)
    with pytest.raises(SetupError, match="no command leads to the state 'nowhere'"):
        app.freeze()


def test_a_state_after_a_refused_block_needs_a_block():
    app = App(protocol=Dialogue())
    app.handler("A", fails_to="start")(lambda: None)
    with pytest.raises(SetupError, match=r"fails_to is for a data block; it has no body\(\)"):
        app.freeze()


def test_an_unknown_option_of_a_handler_is_refused():
    with pytest.raises(
        SetupError, match="no option 'whne'; the options are timeout, idempotent, public, when, to"
    ):
        App(protocol=Dialogue()).handler("A", whne="x")


def test_cuts_change_nothing():
    script = b"".join(
        line + b"\r\n"
        for line in (
            b"HELO me",
            b"MAIL x",
            b"DATA",
            b".." + b"x" * 50,
            b"y\nz",
            b".",
            b"FOO",
            b"NOOP",
        )
    )
    assert_split_invariant(post_office(), script)
    assert_split_invariant(post_office(), script.replace(b"\nz", b""), Limits(max_body_bytes=30))


@given(st.lists(st.text(alphabet="ab. ", max_size=6), max_size=8))
def test_stuffed_lines_are_unstuffed_to_the_original(lines):
    data = "".join(f"{line}\r\n" for line in lines).encode()
    app = App(protocol=Dialogue.pop3())
    app.handler("GIVE")(lambda: data)
    said = app.ask(b"GIVE\r\n").removeprefix(b"+OK ready\r\n+OK\r\n")
    seen = []
    other = App(protocol=Dialogue.smtp())

    @other.handler("DATA")
    def take(got: bytes = body()) -> None:
        seen.append(got)

    other.ask(b"DATA\r\n" + said)
    assert seen == [data or b"\r\n"]


@given(st.binary(max_size=200))
def test_no_bytes_cause_an_internal_error(data):
    assert b"internal error" not in post_office().ask(data + b"\r\n.\r\nNOOP\r\n")


@pytest.mark.parametrize("protocol", [Dialogue.smtp, Dialogue, Dialogue.pop3])
@pytest.mark.parametrize("text", [b"\0", b"a\0b", b"a\rb", b"a\r", b"a\0\rb"])
def test_a_command_with_what_no_reply_may_hold_is_refused(protocol, text):
    app = App(protocol=protocol())
    heard: list[str] = []

    @app.handler
    def echo(text: Rest) -> str:
        heard.append(text)
        return str(text)

    said = app.ask(b"ECHO " + text + b"\r\nECHO ok\r\n").split(b"\r\n")
    assert heard == ["ok"]
    assert b"internal error" not in said[1]
    assert said[1].startswith((b"5", b"-ERR"))


@pytest.mark.parametrize("text", [b"a\0b", b"a\rb"])
def test_an_answer_with_what_no_reply_may_hold_is_refused(text):
    app = App(protocol=Dialogue())

    @app.handler
    def name(answers: Answers) -> str | Ask:
        return answers[0].reveal() if answers else Ask("334 Name?")

    said = app.ask(b"NAME\r\n" + text + b"\r\nNAME\r\nann\r\n").split(b"\r\n")
    assert said[1] == said[3] == b"334 Name?"
    assert said[2].startswith(b"5")
    assert said[4] == b"250 ann"
