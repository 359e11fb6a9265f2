"""Commands of several steps: a handler asks its client, and is run again with the answers."""

from __future__ import annotations

import base64

import pytest

from linepool import (
    Answers,
    App,
    Ask,
    Bad,
    ClientError,
    Dialogue,
    Limits,
    Login,
    Protocol,
    Request,
    Secret,
    Session,
    body,
)
from linepool.batch import answers as replies_to
from linepool.conversation import Conversation
from linepool.resources import Resources
from linepool.testing import assert_split_invariant


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def asking(protocol: Protocol | None = None) -> App:
    """Return an app with AUTH as RFC 4954 has it, and other commands that ask."""
    app = App("asking", protocol=protocol or Dialogue.smtp())
    app.handler("AUTH", to="known")(auth)
    app.handler("ADD", public=True)(add)
    app.handler("WHO", when="known")(who)
    app.handler("KEEP")(keep)
    app.handler("ENDLESS")(endless)
    return app


def auth(
    mechanism: str, session: Session, answers: Answers, initial: Secret | None = None
) -> tuple[int, str] | Ask:
    if mechanism != "LOGIN":
        raise ClientError("unknown mechanism", code=504)
    given = [*([initial] if initial is not None else []), *answers]
    if len(given) < 2:
        return Ask(f"334 {b64(['Username:', 'Password:'][len(given)])}")
    user, password = (base64.b64decode(one.reveal()).decode() for one in given)
    if password != "right":
        raise ClientError("wrong", code=535)
    session.user = user
    return 235, "welcome"


def add(answers: Answers) -> int | Ask:
    if not answers or answers[-1]:
        return Ask(f"350 {sum(map(int, answers))} so far")
    return sum(map(int, answers[:-1]))


def who(session: Session) -> str:
    return str(session.user)


def keep(answers: Answers, text: bytes = body()) -> Ask:
    return Ask("350 why?")


def endless(answers: Answers) -> Ask:
    return Ask(f"350 {len(answers)}")


def talk(app: App, *lines: str) -> list[str]:
    sent = "".join(f"{line}\r\n" for line in lines).encode()
    return app.ask(sent).decode().splitlines()[1:]


LOGIN = ("AUTH LOGIN", b64("ann"), b64("right"))


def test_a_handler_asks_and_is_run_again_with_the_answers():
    assert talk(asking(), *LOGIN, "WHO") == [
        *("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 welcome", "250 ann")
    ]
    assert talk(asking(), f"AUTH LOGIN {b64('ann')}", b64("right"), "WHO")[1:] == [
        "235 welcome",
        "250 ann",
    ]


def test_the_state_follows_the_last_step_only():
    said = talk(asking(), "AUTH LOGIN", b64("ann"), b64("wrong"), "WHO", "AUTH X", "WHO")
    assert said[2:] == [
        *("535 wrong", "503 Bad sequence of commands", "504 unknown mechanism"),
        "503 Bad sequence of commands",
    ]


def test_an_answer_may_look_like_a_command_or_be_empty():
    assert talk(asking(), "ADD", "7", "  5", "", "NOOP") == [
        *("350 0 so far", "350 7 so far", "350 12 so far", "250 12", "250 OK")
    ]
    assert talk(asking(), "AUTH LOGIN", "QUIT", "NOOP")[2].startswith("451 internal error")


@pytest.mark.parametrize(
    ("protocol", "cancelled"),
    [
        (Dialogue.smtp(), "501 Cancelled"),
        (Dialogue.smtp(enhanced_codes=True), "501 5.7.0 Cancelled"),
        (Dialogue.pop3(), "-ERR cancelled"),
        (Dialogue.smtp(cancel="", error_replies={"answer": "501 no"}), "334 UGFzc3dvcmQ6"),
    ],
    ids=["smtp", "enhanced", "pop3", "off"],
)
def test_a_client_cancels_a_command_that_asks(protocol, cancelled):
    assert talk(asking(protocol), "AUTH LOGIN", "*", "NOOP")[1] == cancelled


def test_an_answer_that_is_not_text_or_has_a_lone_line_feed_ends_the_command():
    app = asking()
    for answer, refusal in (
        (b"\xff", b"501 An answer must be UTF-8 text"),
        (b"a\nb", b"554 A line ends with CR LF, and nothing else does"),
    ):
        said = app.ask(b"AUTH LOGIN\r\n" + answer + b"\r\nNOOP\r\n").splitlines()
        assert said[2:] == [refusal, b"250 OK"]


def test_answers_are_bounded_together_and_independent_of_the_limit_for_commands():
    app = asking(Dialogue.smtp(max_answer_bytes=100))
    limits = Limits(max_line_bytes=20)
    for sent, left in (("7" * 98, True), ("7" * 99, False)):
        protocol = app.freeze(limits).open_protocol()
        conversation = Conversation(app.freeze(limits), Session(), Resources())
        protocol = conversation.protocol
        protocol.feed(f"ADD\r\n{sent}".encode())
        assert next(replies_to(conversation)) == b"350 0 so far\r\n"
        protocol.feed(b"\r\n")
        found = protocol.next_request()
        assert isinstance(found, Request if left else Bad)
        if not left:
            assert found == Bad(b"500 Line too long\r\n", close=True)
            assert protocol.at_boundary
    said = talk(asking(Dialogue.smtp(max_answer_bytes=20)), "ENDLESS", *[""] * 20, "NOOP")
    assert said[-3:] == ["350 9", "350 10", "500 Line too long"]


def test_cancelled_commands_count_as_errors():
    app = asking(Dialogue.smtp(max_errors=2))
    assert talk(app, *["AUTH LOGIN", "*"] * 4)[-1] == "421 Too many errors"


def test_a_handler_with_a_data_block_cannot_ask():
    assert talk(asking(), "KEEP", "x", ".", "NOOP")[1:][0].startswith("451 internal error")


def test_a_question_is_one_line():
    app = App(protocol=Dialogue.smtp())
    app.handler("A")(lambda: Ask("334 a\r\n235 b"))
    (said, noop) = talk(app, "A", "NOOP")
    assert said.startswith("451 internal error")
    assert noop == "250 OK"


def test_another_protocol_has_no_questions():
    app = App()
    app.handler("ask")(lambda: Ask("334 x"))
    assert app.ask("ASK").startswith("SERVER_ERROR internal error")


def test_a_public_command_asks_before_a_log_in():
    app = asking()

    @app.authenticate
    def check(user: str, password: Secret) -> bool:
        return password == "right"

    @app.handler("LOGIN", public=True)
    def log_in(login: Login, answers: Answers) -> str | Ask:
        if len(answers) < 2:
            return Ask("334 go on")
        login(*answers)
        return "welcome"

    said = talk(app, "LOGIN", "ann", "wrong", "KEEP", "LOGIN", "ann", "right", "ENDLESS")
    assert said[2:] == [
        *("535 authentication failed", "530 Authentication required"),
        *("334 go on", "334 go on", "250 welcome", "350 0"),
    ]


def connected(app: App) -> Conversation:
    return Conversation(app.freeze(), Session("1-2", "peer", "here"), Resources())


def test_a_connection_moves_between_two_steps():
    app = asking()
    first = connected(app)
    first.feed(b"AUTH LOGIN\r\n" + b64("änn").encode() + b"\r\ncmln")
    assert b"".join(replies_to(first)) == b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"
    assert not first.protocol.at_boundary
    second = connected(app)
    second.load(first.dump())
    assert not second.protocol.at_boundary
    second.feed(b"aHQ=\r\nNOOP\r\n")
    assert b"".join(replies_to(second)) == b"235 welcome\r\n250 OK\r\n"
    assert second.session.user == "änn"
    assert second.protocol.at_boundary


@pytest.mark.parametrize(
    "sent",
    [
        b"ADD  x \xff\r\n",
        b"AUTH LOGIN\r\nYW5u\r\n \xc3\xa4 \r\n",
        b"KEEP\r\n..a\r\n\r\n.\r\n",
        b"ADD\r\n1\r\n\r\n",
    ],
    ids=["command", "answer", "block", "empty answer"],
)
def test_a_request_that_waits_is_put_back_and_read_again_in_another_process(sent):
    one, other = connected(asking()), connected(asking())
    one.feed(sent + b"NOOP\r\n")
    request = one.protocol.next_request()
    while not (request is None or waits(one, request)):
        request = one.protocol.next_request()
    assert isinstance(request, Request)
    one.protocol.take_back(request)
    other.load(one.dump())

    again, noop = other.protocol.next_request(), other.protocol.next_request()

    assert isinstance(again, Request)
    for name in ("verb", "words", "body", "line", "answers"):
        assert getattr(again, name, None) == getattr(request, name, None)
    assert isinstance(noop, Request)
    assert noop.verb == b"NOOP"


def waits(conversation: Conversation, request: Request | Bad) -> bool:
    """Whether this is the last request before NOOP; the others are answered."""
    assert isinstance(request, Request)
    if conversation.protocol.unread_bytes == len(b"NOOP\r\n"):
        return True
    conversation.answer(request)
    return False


def test_code_without_questions_refuses_a_connection_with_an_open_one():
    one = connected(asking())
    one.feed(b"AUTH LOGIN\r\n")
    list(replies_to(one))
    assert one.dump()[:2] == b"\xff\x22"


def test_a_command_that_new_code_lacks_is_unknown_once_it_is_answered():
    one, other = connected(asking()), connected(App(protocol=Dialogue.smtp()))
    one.feed(b"AUTH LOGIN\r\n")
    list(replies_to(one))
    other.load(one.dump())
    other.feed(b"x\r\nNOOP\r\n")
    assert b"".join(replies_to(other)) == b"500 Command not recognized\r\n250 OK\r\n"


def test_answers_stand_in_neither_log_nor_line(caplog):
    app = asking()
    seen: list[Request] = []

    @app.middleware
    def watch(request, session, call_next):
        seen.append(request)
        return call_next(request)

    said = talk(app, "AUTH LOGIN", "c2VjcmV0", "A", "NOOP")
    assert said[2].startswith("451 internal error")
    assert [one.line for one in seen] == [*[b"AUTH LOGIN"] * 3, b"NOOP"]
    assert "c2VjcmV0" not in caplog.text + repr(seen)
    assert repr(getattr(seen[2], "answers", None)) == "(Secret('***'), Secret('***'))"


def test_cuts_change_nothing():
    script = "\r\n".join(
        [*LOGIN, "WHO", "ADD", "1", "*", "ADD", "22", "", "KEEP", ".x", ".", "AUTH LOGIN", "half"]
    )
    assert_split_invariant(asking(Dialogue.smtp(max_answer_bytes=30)), script.encode())
