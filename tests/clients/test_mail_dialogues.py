"""The mailbox: dialogues as the RFCs on SMTP and POP3 have them, line by line."""

from __future__ import annotations

import re
import runpy
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers import EXAMPLES, TIMEOUT, ServerProcess, run_server

MAILBOX = EXAMPLES / "mailbox"
PASSWORDS = {"Jones": "secret", "Brown": "secret", "mrose": "tanstaaf", "test": "1234"}


class Servers(NamedTuple):
    smtp: ServerProcess
    pop3: ServerProcess


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Give both servers, of the users above at foo.com; passwords may be sent in plain text."""
    place = tmp_path_factory.mktemp("mail")
    line = runpy.run_path(str(MAILBOX / "users.py"))["line"]
    (place / "users").write_text("".join(f"{line(*pair)}\n" for pair in PASSWORDS.items()))
    settings = {
        "MAIL_FILE": str(place / "mail.db"),
        "MAIL_USERS": str(place / "users"),
        "MAIL_DOMAIN": "foo.com",
        "MAIL_PLAIN_AUTH": "on",
    }
    with (
        run_server(MAILBOX / "smtp.py", place, "--workers", "1", **settings) as smtp,
        run_server(MAILBOX / "pop3.py", place, "--workers", "1", **settings) as pop3,
    ):
        yield Servers(smtp, pop3)


def play(server: ServerProcess, script: str) -> None:
    """Play the client's lines, ``C:``, and compare the server's, ``S:``; * is any text there."""
    with (
        socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock,
        sock.makefile("rb") as stream,
    ):
        for row in filter(None, map(str.strip, script.splitlines())):
            side, _, text = row.partition(" ")
            if side == "C:":
                sock.sendall(text.encode() + b"\r\n")
            else:
                said = stream.readline().decode()
                pattern = re.escape(text).replace(r"\*", ".*") + "\r\n"
                assert re.fullmatch(pattern, said), f"{said!r} is not {text!r}"
        sock.shutdown(socket.SHUT_WR)
        assert stream.read() == b""


TYPICAL = """
S: 220 foo.com *
C: EHLO bar.com
S: 250-foo.com greets bar.com
S: 250-PIPELINING
S: 250-SIZE 10485760
S: 250-8BITMIME
S: 250-SMTPUTF8
S: 250-ENHANCEDSTATUSCODES
S: 250-AUTH PLAIN LOGIN
S: 250 HELP
C: MAIL FROM:<Smith@bar.com>
S: 250 2.1.0 OK
C: RCPT TO:<Jones@foo.com>
S: 250 2.1.5 OK
C: RCPT TO:<Green@foo.com>
S: 550 5.1.1 No user Green@foo.com here
C: RCPT TO:<Brown@foo.com>
S: 250 2.1.5 OK
C: DATA
S: 354 *
C: Blah blah blah...
C: ..begins with a dot
C: ...etc. etc. etc.
C: .
S: 250 2.0.0 OK*
C: QUIT
S: 221 2.0.0 Bye
"""

SMTP = {
    "typical": TYPICAL,  # RFC 5321, D.1
    "aborted": """
        S: 220 *
        C: HELO bar.com
        S: 250 foo.com
        C: MAIL FROM:<Smith@bar.com>
        S: 250 *
        C: RCPT TO:<Jones@foo.com>
        S: 250 *
        C: RCPT TO:<Green@foo.com>
        S: 550 *
        C: RSET
        S: 250 2.0.0 OK
        C: DATA
        S: 503 5.5.1 Send RCPT first
        C: QUIT
        S: 221 *
        """,  # RFC 5321, D.2
    "order": """
        S: 220 *
        C: MAIL FROM:<a@b>
        S: 503 5.5.1 *
        C: AUTH PLAIN
        S: 503 5.5.1 *
        C: RCPT TO:<Jones@foo.com>
        S: 503 5.5.1 *
        C: DATA
        S: 503 5.5.1 *
        C: NOOP whatever
        S: 250 2.0.0 OK
        C: RSET
        S: 250 2.0.0 OK
        C: HELO
        S: 501 5.5.4 *
        C: HELO me
        S: 250 foo.com
        C: RCPT TO:<Jones@foo.com>
        S: 503 5.5.1 *
        C: MAIL FROM:<>
        S: 250 2.1.0 OK
        C: MAIL FROM:<a@b>
        S: 503 5.5.1 *
        C: AUTH PLAIN
        S: 503 5.5.1 *
        C: DATA
        S: 503 5.5.1 *
        C: ehlo again
        S: 250-foo.com greets again
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250 HELP
        C: RCPT TO:<Jones@foo.com>
        S: 503 5.5.1 *
        C: QUIT now
        S: 501 5.5.4 *
        C: RSET now
        S: 501 5.5.4 *
        C: WHAT
        S: 500 5.5.1 Command not recognized
        """,
    "questions": """
        S: 220 *
        C: VRFY Jones
        S: 252 2.5.0 *
        C: VRFY
        S: 501 5.5.4 *
        C: EXPN list
        S: 502 5.5.1 *
        C: HELP
        S: 214-2.0.0 EHLO HELO *
        S: 214 2.0.0 *
        C: HELP MAIL
        S: 214-2.0.0 *
        S: 214 2.0.0 *
        C: STARTTLS
        S: 502 5.5.1 TLS is not available
        """,
    "paths": """
        S: 220 *
        C: HELO me
        S: 250 *
        C: MAIL FROM:<@one,@two.example:Smith@bar.com>
        S: 250 *
        C: RCPT TO:<Postmaster>
        S: 250 2.1.5 OK
        C: RCPT TO:<POSTMASTER@FOO.COM>
        S: 250 2.1.5 OK
        C: rcpt to:<@relay:jones@Foo.com>
        S: 250 2.1.5 OK
        C: RCPT TO:<"Jones"@foo.com>
        S: 250 2.1.5 OK
        C: RCPT TO:<"J\\ones"@foo.com>
        S: 250 2.1.5 OK
        C: RCPT TO: <Jones@foo.com>
        S: 250 2.1.5 OK
        C: RCPT TO:<Jones@elsewhere.example>
        S: 550 5.7.1 *
        C: RCPT TO:<Jones>
        S: 501 5.1.3 *
        C: RCPT TO:<>
        S: 501 5.1.3 *
        C: RCPT TO:Jones@foo.com
        S: 501 5.1.3 *
        C: RCPT TO:<.Jones@foo.com>
        S: 501 5.1.3 *
        C: RCPT TO:<J\u00f6nes@foo.com>
        S: 553 5.6.7 Such an address needs SMTPUTF8
        C: RCPT FROM:<Jones@foo.com>
        S: 501 5.5.4 *
        C: RCPT TO:<Jones@foo.com> NOTIFY=NEVER
        S: 555 5.5.4 *
        C: RCPT TO:<Jones@foo.com>x
        S: 501 5.5.4 *
        """,
    "parameters": """
        S: 220 *
        C: EHLO me
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250 *
        C: MAIL FROM:<Smith>
        S: 501 5.1.7 *
        C: MAIL FROM:<Postmaster>
        S: 501 5.1.7 *
        C: MAIL FROM:<a@b> SIZE=10485761
        S: 552 5.3.4 Message too large
        C: MAIL FROM:<a@b> SIZE=x
        S: 501 5.5.4 *
        C: MAIL FROM:<a@b> BODY=BINARYMIME
        S: 501 5.5.4 *
        C: MAIL FROM:<a@b> BODY=7BIT BODY=7BIT
        S: 501 5.5.4 *
        C: MAIL FROM:<a@b> RET=HDRS
        S: 555 5.5.4 *
        C: MAIL FROM:<a@b> SMTPUTF8=1
        S: 501 5.5.4 *
        C: MAIL FROM:<\u00fc@b>
        S: 553 5.6.7 *
        C: MAIL FROM:<\u00fc@b\u00fc.example> SMTPUTF8
        S: 250 2.1.0 OK
        C: RCPT TO:<\u00fc@foo.com>
        S: 550 5.1.1 No user \u00fc@foo.com here
        C: RSET
        S: 250 2.0.0 OK
        C: mail from:<a@[127.0.0.1]> size=1000 body=8BITMIME AUTH=<>
        S: 250 2.1.0 OK
        """,
    # RFC 4954, 4.1, and with the responses that LOGIN has
    "auth plain": """
        S: 220 *
        C: EHLO me
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-*
        S: 250-AUTH PLAIN LOGIN
        S: 250 *
        C: AUTH PLAIN
        S: 334 *
        C: *
        S: 501 5.7.0 Cancelled
        C: AUTH FOOBAR
        S: 504 5.5.4 *
        C: AUTH
        S: 501 5.5.4 *
        C: AUTH PLAIN =
        S: 501 5.5.2 *
        C: AUTH PLAIN no base64!
        S: 501 5.5.4 *
        C: AUTH PLAIN !
        S: 501 5.5.2 *
        C: AUTH PLAIN dGVzdAB0ZXN0AHdyb25n
        S: 535 5.7.8 Authentication failed
        C: AUTH PLAIN AG5vYm9keQAxMjM0
        S: 535 5.7.8 Authentication failed
        C: AUTH PLAIN Sm9uZXMAdGVzdAAxMjM0
        S: 501 5.5.2 *
        C: AUTH PLAIN
        S: 334 *
        C: dGVzdAB0ZXN0ADEyMzQ=
        S: 235 2.7.0 Authentication successful
        C: AUTH PLAIN dGVzdAB0ZXN0ADEyMzQ=
        S: 503 5.5.1 *
        """,
    "auth plain at once": """
        S: 220 *
        C: HELO me
        S: 250 *
        C: auth plain dGVzdAB0ZXN0ADEyMzQ=
        S: 235 2.7.0 *
        """,
    "auth login": """
        S: 220 *
        C: HELO me
        S: 250 *
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: dGVzdA==
        S: 334 UGFzc3dvcmQ6
        C: d3Jvbmc=
        S: 535 5.7.8 *
        C: AUTH LOGIN dGVzdEBmb28uY29t
        S: 334 UGFzc3dvcmQ6
        C: MTIzNA==
        S: 235 2.7.0 *
        """,
}


@pytest.mark.parametrize("name", SMTP)
def test_a_dialogue_of_smtp(servers, name):
    play(servers.smtp, SMTP[name])


def test_a_pipeline_of_smtp_is_answered_in_its_order(servers):
    """As in RFC 2920, 4."""
    said = servers.smtp.converse(
        b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<Green@foo.com>\r\nRCPT TO:<Brown@foo.com>\r\nDATA\r\n"
        b"Subject: x\r\n\r\ntext\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<Green@foo.com>\r\nDATA\r\nQUIT\r\n"
    )
    codes = [line[:3] for line in said.splitlines()[9:]]
    assert codes == [b"250", b"550", b"250", b"354", b"250", b"250", b"550", b"503", b"221"]


START = b"HELO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<Brown@foo.com>\r\nDATA\r\n"


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (b"x" * 998 + b"\r\n.\r\n", b"250 2.0.0"),
        (b"x" * 999 + b"\r\n.\r\n", b"554 5.6.0"),
        (b"a\nb\r\n.\r\n", b"554 5.5.2"),
        (b"Received: x\r\n" * 101 + b"\r\n.\r\n", b"554 5.4.6"),
        ((b"x" * 900 + b"\r\n") * 12_000 + b".\r\n", b"552 5.3.4"),
    ],
    ids=["998 bytes", "999 bytes", "lone LF", "loop", "10 MiB"],
)
def test_a_mail_is_refused_and_the_next_one_may_follow(servers, text, reply):
    """A refused mail is discarded with its sender and recipients (RFC 5321, 4.1.1.4)."""
    said = servers.smtp.converse(START + text + START[9:] + b".\r\nQUIT\r\n").splitlines()
    assert said[5].startswith(reply)
    assert [line[:3] for line in said[6:]] == [b"250", b"250", b"354", b"250", b"221"]


def test_lengths_of_paths_and_lines(servers):
    local = "x" * 64
    domain = ".".join(["d" * 60] * 4)[: 256 - len(f"<{local}@>")]
    script = [
        "HELO me",
        f"MAIL FROM:<{local}@{domain}>",
        "RSET",
        f"MAIL FROM:<{local}@{domain}d>",
        f"MAIL FROM:<x{local}@d>",
        f"NOOP {'x' * 505}",
        f"NOOP {'x' * 2000}",
    ]
    said = servers.smtp.converse("".join(f"{row}\r\n" for row in script).encode()).splitlines()
    assert [line[:9] for line in said[2:]] == [
        *(b"250 2.1.0", b"250 2.0.0", b"501 5.1.7", b"501 5.1.7", b"250 2.0.0", b"500 5.5.2")
    ]


def test_the_recipients_of_a_mail_are_a_hundred_at_most(tmp_path):
    hashes = "".join(f"u{number}:AAAA:AAAA\n" for number in range(101))
    (tmp_path / "users").write_text(f"# users\n\n{hashes}")
    settings = {"MAIL_FILE": str(tmp_path / "mail.db"), "MAIL_USERS": str(tmp_path / "users")}
    with run_server(MAILBOX / "smtp.py", tmp_path, "--workers", "1", **settings) as smtp:
        recipients = b"".join(b"RCPT TO:<u%d@mail.example>\r\n" % number for number in range(101))
        said = smtp.converse(
            START.split(b"RCPT")[0] + recipients + b"DATA\r\nx\r\n.\r\nAUTH PLAIN\r\n"
        ).splitlines()
    assert said[3:103] == [b"250 2.1.5 OK"] * 100
    assert said[103] == b"452 4.5.3 Too many recipients"
    assert said[105].startswith(b"250 2.0.0")
    assert said[106] == b"538 5.7.11 A password needs TLS: send STARTTLS first"


@pytest.mark.parametrize(
    ("users", "why"),
    [
        (None, "cannot read users: No such file or directory"),
        ("", "users has no user"),
        ("ann:secret\n", "a line of users is not NAME:SALT:HASH"),
        ("a/b:AAAA:AAAA\n", "a line of users is not NAME:SALT:HASH"),
    ],
)
def test_a_wrong_file_of_users_is_refused_at_the_start(tmp_path, users, why):
    if users is not None:
        (tmp_path / "users").write_text(users)
    environment = {"MAIL_USERS": "users"}
    with ServerProcess(tmp_path, MAILBOX / "pop3.py", ready=False, environment=environment) as one:
        assert one.ended() == 1
        assert why in one.text


def sent(servers: Servers, user: str, *texts: str) -> None:
    start = START.replace(b"Brown", user.encode())
    for text in texts:
        assert b"250 2.0.0 OK" in servers.smtp.converse(start + text.encode() + b"\r\n.\r\n")


def test_a_session_of_pop3(servers):
    """As in RFC 1939, 10, with what the RFC says of each command."""
    sent(servers, "mrose", "Subject: one\r\n\r\na\r\n..b\r\nc", "Subject: two\r\n\r\n")
    play(
        servers.pop3,
        """
        S: +OK mailbox
        C: STAT
        S: -ERR log in first
        C: CAPA
        S: +OK
        S: USER
        S: SASL PLAIN LOGIN
        S: TOP
        S: UIDL
        S: UTF8
        S: RESP-CODES
        S: AUTH-RESP-CODE
        S: PIPELINING
        S: EXPIRE NEVER
        S: IMPLEMENTATION linepool
        S: .
        C: STLS
        S: -ERR TLS is not available
        C: PASS tanstaaf
        S: -ERR say USER first
        C: USER mrose
        S: +OK *
        C: PASS wrong
        S: -ERR [AUTH] *
        C: USER nobody
        S: +OK *
        C: PASS x
        S: -ERR [AUTH] *
        C: USER mrose
        S: +OK *
        C: PASS tanstaaf
        S: +OK 2 messages
        C: USER mrose
        S: -ERR not now
        C: STAT
        S: +OK 2 *
        C: LIST
        S: +OK 2 messages
        S: 1 *
        S: 2 *
        S: .
        C: LIST 2
        S: +OK 2 *
        C: LIST 3
        S: -ERR no such message
        C: UIDL
        S: +OK *
        S: 1 *
        S: 2 *
        S: .
        C: UIDL 1
        S: +OK 1 *
        C: RETR 1
        S: +OK * octets
        S: Return-Path: <a@b>
        S: Received: from me ([127.0.0.1])
        S: *by foo.com with SMTP id * for <mrose@foo.com>;
        S: * +0000
        S: Subject: one
        S:
        S: a
        S: ..b
        S: c
        S: .
        C: TOP 1 1
        S: +OK top
        S: *
        S: *
        S: *
        S: *
        S: Subject: one
        S:
        S: a
        S: .
        C: TOP 1 -1
        S: -ERR *
        C: TOP 1
        S: -ERR *
        C: RETR 0
        S: -ERR no such message
        C: DELE 1
        S: +OK *
        C: DELE 1
        S: -ERR no such message
        C: LIST
        S: +OK 1 messages
        S: 2 *
        S: .
        C: RSET
        S: +OK 2 messages
        C: NOOP
        S: +OK
        C: DELE 2
        S: +OK *
        C: QUIT
        S: +OK bye
        """,
    )
    play(
        servers.pop3,
        """
        S: +OK mailbox
        C: USER mrose
        S: +OK *
        C: PASS tanstaaf
        S: +OK 1 messages
        C: DELE 1
        S: +OK *
        """,
    )  # without QUIT, nothing is deleted (RFC 1939, 3)
    play(
        servers.pop3,
        """
        S: +OK mailbox
        C: USER MROSE@FOO.COM
        S: +OK *
        C: PASS tanstaaf
        S: +OK 1 messages
        """,
    )


def test_a_client_of_pop3_logs_in_by_a_mechanism(servers):
    """As in RFC 5034, 6."""
    play(
        servers.pop3,
        """
        S: +OK mailbox
        C: AUTH FOOBAR
        S: -ERR the mechanisms are PLAIN LOGIN
        C: AUTH
        S: -ERR mechanism is missing*
        C: AUTH PLAIN
        S: + *
        C: *
        S: -ERR cancelled
        C: AUTH PLAIN
        S: + *
        C: !
        S: -ERR [AUTH] *
        C: AUTH PLAIN dGVzdAB0ZXN0AHRlc3Q=
        S: -ERR [AUTH] authentication failed
        C: AUTH LOGIN
        S: + VXNlcm5hbWU6
        C: dGVzdA==
        S: + UGFzc3dvcmQ6
        C: d3Jvbmc=
        S: -ERR [AUTH] authentication failed
        C: AUTH PLAIN
        S: + *
        C: dGVzdAB0ZXN0ADEyMzQ=
        S: +OK 0 messages
        C: AUTH PLAIN dGVzdAB0ZXN0ADEyMzQ=
        S: -ERR not now
        C: QUIT
        S: +OK bye
        """,
    )


def test_a_mail_by_smtputf8_is_for_clients_of_utf8(servers):
    """As in RFC 6531 and RFC 6856."""
    said = servers.smtp.converse(
        "EHLO me\r\nMAIL FROM:<\u00fc@b.example> SMTPUTF8\r\nRCPT TO:<Brown@foo.com>\r\nDATA\r\n"
        "Subject: gr\u00fcn\r\n\r\ntext\r\n.\r\nQUIT\r\n".encode()
    )
    assert b"250 2.0.0 OK" in said
    login = b"USER Brown\r\nPASS secret\r\n"
    last = int(re.findall(rb"OK (\d+) messages", servers.pop3.converse(login + b"QUIT\r\n"))[0])
    read = b"%bRETR %d\r\nTOP %d 0\r\nQUIT\r\n" % (login, last, last)
    assert servers.pop3.converse(read).count(b"-ERR [UTF8]") == 2
    said = servers.pop3.converse(b"UTF8\r\n" + read + b"UTF8\r\n")
    assert said.decode().count("Subject: gr\u00fcn\r\n") == 2
    assert b" with UTF8SMTP id " in said
    assert "Return-Path: <\u00fc@b.example>" in said.decode()


def test_a_maildrop_is_open_once(servers):
    login = b"AUTH PLAIN dGVzdAB0ZXN0ADEyMzQ=\r\n"
    with servers.pop3.connect() as peer:
        peer.line()
        peer.send(login)
        assert peer.line() == "+OK 0 messages"
        said = servers.pop3.converse(login + b"STAT\r\nQUIT\r\n").splitlines()
        assert said[1:] == [
            b"-ERR [IN-USE] the mailbox is open elsewhere",
            *(b"-ERR log in first", b"+OK bye"),
        ]
        peer.send(b"QUIT\r\n")
        assert peer.line() == "+OK bye"
    assert b"+OK 0 messages" in servers.pop3.converse(login + b"QUIT\r\n")


def test_a_refused_log_in_is_logged_without_the_password(servers):
    servers.smtp.converse(b"HELO me\r\nAUTH PLAIN AGV2ZQBodW50ZXIy\r\nQUIT\r\n")
    servers.pop3.converse(b"AUTH PLAIN AGV2ZQBodW50ZXIy\r\nQUIT\r\n")
    for server in servers:
        assert "log-in refused" in server.wait_for("user='eve'")
        assert "hunter2" not in server.text
        assert "AGV2ZQ" not in server.text


def test_ten_wrong_passwords_end_a_connection(servers):
    said = servers.pop3.converse(b"AUTH PLAIN AG5vYm9keQAxMjM0\r\n" * 11).splitlines()
    assert said[1:] == [b"-ERR [AUTH] authentication failed"] * 10
    assert "1234" not in servers.pop3.text


def test_a_line_of_a_new_user_is_read(tmp_path: Path) -> None:
    names = runpy.run_path(str(MAILBOX / "users.py"))
    users = names["Users"](dict([names["_parsed"](names["line"]("Ann", "pass: w\u00f6rd"))]))
    secret = names["Secret"]
    assert users.logged_in("ann", secret("pass: wo\u0308rd")) == "Ann"
    assert users.logged_in("Ann", secret("pass: word")) is None
    assert users.logged_in("Ann@elsewhere.example", secret("pass: w\u00f6rd")) is None
    assert users.postmaster == "Ann"
