"""The mailbox: SMTP in, POP3 out, with standard clients."""

from __future__ import annotations

import contextlib
import poplib
import smtplib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage

import pexpect
import pytest

from linepool.testing import assert_split_invariant
from tests.certificates import Authority
from tests.clients.harness import Killer, Recorder, output
from tests.servers import EXAMPLES, run_server
from tests.unit.test_dialogue import post_office


@pytest.fixture
def mail_servers(tmp_path):
    smtp_dir, pop3_dir = tmp_path / "smtp", tmp_path / "pop3"
    smtp_dir.mkdir()
    pop3_dir.mkdir()
    file = {"MAIL_FILE": str(tmp_path / "mail.db"), "MAIL_PLAIN_AUTH": "on"}
    with (
        run_server(EXAMPLES / "mailbox" / "smtp.py", smtp_dir, "--workers", "4", **file) as smtp,
        run_server(EXAMPLES / "mailbox" / "pop3.py", pop3_dir, "--workers", "4", **file) as pop3,
    ):
        yield smtp, pop3


@contextlib.contextmanager
def mailbox(server, user="ann"):
    client = poplib.POP3("127.0.0.1", server.port, timeout=20)
    try:
        client.user(user)
        client.pass_("secret")
        yield client
    finally:
        with contextlib.suppress(OSError, poplib.error_proto):
            client.quit()
        client.close()


def send(server, text: str, to: tuple[str, ...] = ("ann@mail.example",)) -> None:
    with smtplib.SMTP("127.0.0.1", server.port, timeout=20) as client:
        client.sendmail("me@there.example", to, text)


def test_mail_sent_by_smtplib_is_read_by_poplib(mail_servers):
    smtp, pop3 = mail_servers
    send(smtp, "Subject: one\n\n.dots\n..\n.\nend")
    send(smtp, "Subject: two\n\nfor both", ("ann@mail.example", "bob@mail.example"))
    with mailbox(pop3) as client:
        count, size = client.stat()
        assert count == 2
        _, lines, _ = client.retr(1)
        assert lines[-6:] == [b"Subject: one", b"", b".dots", b"..", b".", b"end"]
        assert lines[0] == b"Return-Path: <me@there.example>"
        assert sum(int(row.split()[1]) for row in client.list()[1]) == size
        assert client.top(2, 0)[1][-2:] == [b"Subject: two", b""]
        assert len({row.split()[1] for row in client.uidl()[1]}) == 2
        client.dele(1)
        assert client.stat()[0] == 1
        client.rset()
        client.dele(2)
    with mailbox(pop3) as client:
        assert client.stat()[0] == 1
    with mailbox(pop3, "bob") as client:
        assert client.stat()[0] == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def sealed_servers(authority, tmp_path_factory):
    """Give both servers with STARTTLS, where passwords need it."""
    place = tmp_path_factory.mktemp("sealed")
    pair = str(authority.certificate("localhost", "DNS:localhost", "IP:127.0.0.1"))
    options = ("--workers", "2", "--tls-cert", pair, "--starttls", "on")
    file = {"MAIL_FILE": str(place / "mail.db")}
    mailboxes = EXAMPLES / "mailbox"
    with (
        run_server(mailboxes / "smtp.py", place, *options, **file) as smtp,
        run_server(mailboxes / "pop3.py", place, *options, **file) as pop3,
    ):
        yield smtp, pop3


@pytest.fixture(scope="module")
def context(authority):
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def received(pop3, context, user="ann") -> list[bytes]:
    """Return the first message of a user, and delete it."""
    with contextlib.closing(poplib.POP3("localhost", pop3.port, timeout=20)) as client:
        client.stls(context)
        client.user(user)
        client.pass_("secret")
        lines: list[bytes] = client.retr(1)[1]
        client.dele(1)
        client.quit()
    return lines


def test_smtplib_begins_tls(sealed_servers, context):
    smtp, pop3 = sealed_servers
    with smtplib.SMTP("localhost", smtp.port, timeout=20) as client:
        client.ehlo("me")
        assert not client.has_extn("auth")
        assert client.docmd("AUTH", "PLAIN AGFubgBzZWNyZXQ=")[0] == 538
        assert client.docmd("MAIL", "FROM:<me@there.example>")[0] == 250
        assert client.starttls(context=context)[0] == 220
        assert client.docmd("RCPT", "TO:<ann@mail.example>")[0] == 503  # all is forgotten
        client.ehlo("me")
        assert not client.has_extn("starttls")
        assert client.has_extn("auth")
        assert client.docmd("STARTTLS")[0] == 503
        client.sendmail("me@there.example", ["ann@mail.example"], "Subject: sealed\n\n")
    # What an attacker has put behind the command is not run, before TLS or under it.
    attack = b"EHLO me\r\nSTARTTLS\r\nRSET\r\n"
    last = smtp.converse(attack).splitlines()[-1]
    assert last == b"554 5.0.0 nothing may follow this command before TLS has begun"
    assert b"with ESMTPS id" in received(pop3, context)[2]


def test_poplib_begins_tls(sealed_servers, context):
    _, pop3 = sealed_servers
    mailbox = poplib.POP3("localhost", pop3.port, timeout=20)
    assert {"STLS", "SASL", "USER"} & set(mailbox.capa()) == {"STLS"}
    with pytest.raises(poplib.error_proto, match="a password needs TLS"):
        mailbox.user("ann")
    assert b"-ERR a password needs TLS" in pop3.converse(b"AUTH PLAIN\r\nQUIT\r\n")
    mailbox.stls(context)
    capabilities = mailbox.capa()
    assert "STLS" not in capabilities
    assert capabilities["SASL"] == ["PLAIN", "LOGIN"]
    mailbox.user("ann")
    mailbox.pass_("secret")
    assert mailbox.stat()[0] == 0
    assert "STLS" not in mailbox.capa()
    mailbox.quit()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("at_once", [True, False], ids=["initial response", "no initial response"])
def test_smtplib_logs_in(sealed_servers, context, mechanism, at_once):
    smtp, _ = sealed_servers
    with smtplib.SMTP("localhost", smtp.port, timeout=20) as client:
        client.starttls(context=context)
        client.user, client.password = "ann", "wrong"
        way = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}[mechanism]
        client.ehlo("me")
        with pytest.raises(smtplib.SMTPAuthenticationError, match=r"5\.7\.8"):
            client.auth(mechanism, way, initial_response_ok=at_once)
        client.password = "secret"
        assert client.auth(mechanism, way, initial_response_ok=at_once)[0] == 235
        assert client.docmd("AUTH", "PLAIN")[0] == 503


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_and_curl_log_in_and_deliver(sealed_servers, authority, context, tmp_path, mechanism):
    smtp, pop3 = sealed_servers
    said = output(
        *("swaks", "--server", f"127.0.0.1:{smtp.port}", "--to", "Bob@mail.example", "-tls"),
        *("--from", "Me@there.example", "--auth", mechanism, "--auth-user", "bob"),
        *("--auth-password", "secret", "--body", "by swaks"),
    )
    assert "TLS started with cipher" in said
    assert "235 2.7.0 Authentication successful" in said
    lines = received(pop3, context, "bob")
    assert lines[0] == b"Return-Path: <Me@there.example>"
    assert b"with ESMTPSA id" in lines[2]
    assert lines[2].endswith(b"for <Bob@mail.example>;")
    mail = tmp_path / "mail"
    mail.write_bytes(b"Subject: by curl\r\n\r\n.text\r\n")
    curl = ("curl", "-sS", "--ssl-reqd", "--cacert", authority.path, "--login-options")
    output(
        *(*curl, f"AUTH={mechanism}", "--user", "ann:secret", f"smtp://localhost:{smtp.port}"),
        *("--mail-from", "me@there.example", "--mail-rcpt", "bob@mail.example", "-T", mail),
    )
    at = f"pop3://localhost:{pop3.port}/1"
    said = output(*curl, f"AUTH={mechanism}", "--user", "bob:secret", at)
    assert said.endswith("Subject: by curl\n\n.text\n")
    output(*curl, f"AUTH={mechanism}", "--user", "bob:secret", "-X", "DELE", "-l", at)
    with pytest.raises(poplib.error_proto, match="no such message"):
        received(pop3, context, "bob")


def test_smtplib_is_told_what_is_served_and_what_is_wrong(mail_servers):
    smtp, _ = mail_servers
    with smtplib.SMTP("127.0.0.1", smtp.port, timeout=20) as client:
        client.ehlo("me")
        assert client.has_extn("size")
        assert client.has_extn("pipelining")
        assert client.docmd("DATA")[0] == 503
        assert client.mail("me")[0] == 501
        assert client.mail("me@there.example")[0] == 250
        assert client.rcpt("nobody@mail.example")[0] == 550
        assert client.docmd("RCPT", "TO:ann")[0] == 501
        assert client.rcpt("ann@mail.example")[0] == 250
        assert client.rset()[0] == 250
        assert client.docmd("EXPN", "list")[0] == 502
        assert client.docmd("MAIL", "FROM:<a@b> SIZE=99999999")[0] == 552
        assert client.docmd("MAIL", "FROM:<a@b> FOO=1")[0] == 555
        assert client.docmd("MAIL", "FROM:<>")[0] == 250
        assert client.verify("ann")[0] == 252
        assert client.noop()[0] == 250


def test_smtplib_and_poplib_exchange_a_mail_whose_header_is_utf8(mail_servers):
    smtp, pop3 = mail_servers
    message = EmailMessage()
    message["From"], message["To"] = "J\u00f6 <j\u00f6@there.example>", "ann@mail.example"
    message["Subject"] = "gr\u00fcn"
    message.set_content("text")
    with smtplib.SMTP("127.0.0.1", smtp.port, timeout=20) as client:
        client.send_message(message)
    with mailbox(pop3) as client, pytest.raises(poplib.error_proto, match="UTF8"):
        client.retr(1)
    with contextlib.closing(poplib.POP3("127.0.0.1", pop3.port, timeout=20)) as client:
        client.utf8()
        client.user("ann")
        client.pass_("secret")
        lines = client.retr(1)[1]
        client.quit()
    assert "Return-Path: <j\u00f6@there.example>".encode() in lines
    assert "Subject: gr\u00fcn".encode() in lines


def test_swaks_delivers_mail(mail_servers):
    smtp, pop3 = mail_servers
    for options in ((), ("--pipeline",)):
        said = output(
            *("swaks", "--server", f"127.0.0.1:{smtp.port}", "--to", "ann@mail.example"),
            *("--from", "me@there.example", "--body", "hello", *options),
        )
        assert "250 2.0.0 OK: it is in the mailbox" in said
    with mailbox(pop3) as client:
        assert client.stat()[0] == 2


def test_poplib_is_told_what_is_wrong(mail_servers):
    _, pop3 = mail_servers
    client = poplib.POP3("127.0.0.1", pop3.port, timeout=20)
    for call, why in (
        (client.stat, "log in first"),
        (lambda: client.pass_("secret"), "say USER first"),
    ):
        with pytest.raises(poplib.error_proto, match=why):
            call()
    client.user("ann")
    with pytest.raises(poplib.error_proto, match="AUTH"):
        client.pass_("wrong")
    client.user("ann")
    client.pass_("secret")
    with pytest.raises(poplib.error_proto, match="no such message"):
        client.retr(1)
    assert client.capa()["TOP"] == []
    client.quit()


def test_a_mailbox_is_locked_once_and_unlocked_after_its_worker_dies(mail_servers):
    _, pop3 = mail_servers
    with mailbox(pop3), pytest.raises(poplib.error_proto, match="IN-USE"), mailbox(pop3):
        pass
    with mailbox(pop3) as client, Killer(pop3, 12) as killer:
        while killer.killed < 12:
            with contextlib.suppress(OSError, poplib.error_proto):
                client.noop()
    with mailbox(pop3) as client:
        assert client.stat() == (0, 0)


def test_kills_neither_lose_nor_corrupt_acknowledged_mail(mail_servers):
    smtp, pop3 = mail_servers

    def deliver(number: int) -> list[str]:
        acknowledged = []
        serial = 0
        while killer.killed < 10:
            serial += 1
            name = f"{number}-{serial}"
            with contextlib.suppress(OSError, smtplib.SMTPException):
                send(smtp, f"Subject: {name}\n\n" + f"{name}\n" * 200 + "end")
                acknowledged.append(name)
        return acknowledged

    with Killer(smtp, 10) as killer, ThreadPoolExecutor(2) as pool:
        sent = [name for names in pool.map(deliver, range(2)) for name in names]
    found = []
    more = True
    while more:  # a session lists only the first 200
        with mailbox(pop3) as client:
            more = client.stat()[0] > 0
            for number in range(1, client.stat()[0] + 1):
                lines = client.retr(number)[1]
                at = next(at for at, line in enumerate(lines) if line.startswith(b"Subject: "))
                name = lines[at][9:]
                assert lines[at + 1 :] == [b"", *[name] * 200, b"end"]
                found.append(name.decode())
                client.dele(number)
    assert set(sent) <= set(found)
    assert len(sent) > 5


def test_a_dialogue_over_netcat(mail_servers):
    smtp, pop3 = mail_servers
    for server, script in (
        (
            smtp,
            [
                ("", "220 mail.example"),
                ("EHLO me", "250 HELP"),
                ("MAIL FROM:<me@there.example>", "250 2.1.0 OK"),
                ("RCPT TO:<ann@mail.example>", "250 2.1.5 OK"),
                ("DATA", "354 End with a dot on a line"),
                ("Subject: hello", ""),
                ("", ""),
                ("Hello Ann", ""),
                (".", "250 2.0.0 OK: it is in the mailbox"),
                ("QUIT", "221 2.0.0 Bye"),
            ],
        ),
        (
            pop3,
            [
                ("", r"\+OK mailbox"),
                ("USER ann", r"\+OK now the password"),
                ("PASS secret", r"\+OK 1 messages"),
                ("RETR 1", r"Hello Ann[\r\n]+\."),
                ("QUIT", r"\+OK bye"),
            ],
        ),
    ):
        nc = pexpect.spawn("nc", ["-C", "127.0.0.1", str(server.port)], timeout=20, echo=False)
        for number, (line, reply) in enumerate(script):
            if number:
                nc.sendline(line)
            if reply:
                nc.expect(reply)
        nc.sendeof()
        nc.expect(pexpect.EOF)
        nc.close()


def test_a_smuggled_mail_is_refused(mail_servers):
    smtp, pop3 = mail_servers
    start = b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@mail.example>\r\nDATA\r\n"
    for end in (b"\n.\n", b"\n.\r\n", b"\r.\r"):
        with socket.create_connection(("127.0.0.1", smtp.port), 20) as sock:
            sock.sendall(start + b"one" + end + start[9:] + b"two\r\n.\r\nQUIT\r\n")
            said = b"".join(iter(lambda: sock.recv(65536), b""))
        assert b"554 5.5.2 A line ends with CR LF" in said
    with mailbox(pop3) as client:
        assert client.stat()[0] == 0


def test_the_bytes_of_real_clients_may_be_split_anywhere(mail_servers):
    smtp, pop3 = mail_servers
    with Recorder(smtp) as recorder, smtplib.SMTP("127.0.0.1", recorder.port) as client:
        client.sendmail("a@b", ["ann@mail.example"], "Subject: x\n\n.y\n")
    script = recorder.sent.replace(b"ehlo", b"HELO").replace(b"rcpt TO", b"NOOP")
    assert b"\r\n..y\r\n.\r\n" in script
    assert_split_invariant(post_office(), script)
    with Recorder(pop3) as recorder:
        pop = poplib.POP3("127.0.0.1", recorder.port)
        pop.user("ann")
        pop.pass_("secret")
        pop.quit()
    assert_split_invariant(post_office(), recorder.sent)
