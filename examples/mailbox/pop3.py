"""The POP3 server of the mailbox; see README.md in this folder."""

import hmac
from collections.abc import Iterator

from store import Message, Store, check, opened, users

import linepool

# A mailbox is locked by the process that opened it, so the connection must stay there: scheme accept.
app = linepool.App(
    "pop3", protocol=linepool.Dialogue.pop3("+OK mailbox"), max_line_bytes=512, scheme="accept"
)
OPEN = "open"
MAX_MESSAGES = 200  # listed per session, which holds at most 8192 bytes; more in the next session


app.on_start(check)


@app.resource
def mailboxes() -> Iterator[Store]:
    """Open the store in each worker: an SQLite connection must not cross a fork."""
    yield from opened()


@app.on_disconnect
def unlock(session: linepool.Session, mailboxes: Store) -> None:
    """Unlock the mailbox, however the connection ended."""
    if session.user is not None:
        mailboxes.unlock(session.id)


@app.handler
def capa() -> list[str]:
    """List the supported extensions."""
    return ["TOP", "UIDL", "USER", "RESP-CODES", "PIPELINING"]


@app.handler(when="start")
def user(name: str, session: linepool.Session) -> str:
    """Name the user."""
    session["name"] = name.lower()
    return "now the password"


@app.handler("PASS", when="start", to=OPEN)
def password(word: linepool.Rest, session: linepool.Session, mailboxes: Store) -> str:
    """Check the password, and open the mailbox."""
    name = session.pop("name", None)
    if name is None:
        raise linepool.ClientError("say USER first")
    if name not in users() or not hmac.compare_digest(users()[name].encode(), word.encode()):
        raise linepool.ClientError("wrong user or password", code="AUTH")
    if not mailboxes.lock(name, session.id):
        raise linepool.ClientError("the mailbox is open elsewhere", code="IN-USE")
    session.user = name
    # Message numbers are fixed for the session, whatever arrives meanwhile.
    session["messages"] = [[one.id, one.size] for one in mailboxes.messages(name)[:MAX_MESSAGES]]
    session["deleted"] = []
    return f"{len(session['messages'])} messages"


def listed(session: linepool.Session) -> list[tuple[int, Message]]:
    """Return the messages that are not marked as deleted, with their numbers."""
    rows = enumerate((Message(*row) for row in session["messages"]), 1)
    return [(number, message) for number, message in rows if number not in session["deleted"]]


def chosen(session: linepool.Session, number: int) -> Message:
    """Return the message with a number."""
    for at, message in listed(session):
        if at == number:
            return message
    raise linepool.ClientError("no such message")


def read(mailboxes: Store, message: Message) -> bytes:
    data = mailboxes.data(message.id)
    if data is None:
        raise linepool.ClientError("the message is gone")
    return data


@app.handler(when=OPEN)
def stat(session: linepool.Session) -> str:
    """Count the messages and their bytes."""
    found = listed(session)
    return f"{len(found)} {sum(message.size for _, message in found)}"


@app.handler("LIST", when=OPEN)
def list_(session: linepool.Session, number: int | None = None) -> str | tuple[str, list[str]]:
    """List the sizes of the messages, or of one."""
    if number is not None:
        return f"{number} {chosen(session, number).size}"
    found = listed(session)
    return f"{len(found)} messages", [f"{at} {message.size}" for at, message in found]


@app.handler(when=OPEN)
def uidl(session: linepool.Session, number: int | None = None) -> str | tuple[str, list[str]]:
    """List the unique ids of the messages, or of one."""
    if number is not None:
        return f"{number} {chosen(session, number).id}"
    return "unique ids", [f"{at} {message.id}" for at, message in listed(session)]


@app.handler(when=OPEN)
def retr(number: int, session: linepool.Session, mailboxes: Store) -> tuple[str, bytes]:
    """Send a message."""
    message = chosen(session, number)
    return f"{message.size} octets", read(mailboxes, message)


@app.handler(when=OPEN)
def top(number: int, lines: int, session: linepool.Session, mailboxes: Store) -> tuple[str, bytes]:
    """Send a message's header and the first lines of its body."""
    if lines < 0:
        raise linepool.ClientError("lines must be 0 or more")
    head, gap, body = read(mailboxes, chosen(session, number)).partition(b"\r\n\r\n")
    rows = body.split(b"\r\n")[:lines]
    return "top", head + gap + b"".join(row + b"\r\n" for row in rows)


@app.handler(when=OPEN)
def dele(number: int, session: linepool.Session) -> str:
    """Mark a message as deleted."""
    chosen(session, number)
    session["deleted"] = [*session["deleted"], number]
    return f"message {number} will be deleted at QUIT"


@app.handler(when=OPEN)
def rset(session: linepool.Session) -> str:
    """Remove all deletion marks."""
    session["deleted"] = []
    return f"{len(session['messages'])} messages"


@app.handler
def quit_(session: linepool.Session, mailboxes: Store) -> linepool.Reply:
    """Delete the marked messages, and close the connection."""
    if session.user is not None:
        mailboxes.delete(session["messages"][number - 1][0] for number in session["deleted"])
        mailboxes.unlock(session.id)  # before the client reads the reply
    return linepool.Reply("bye", close=True)


if __name__ == "__main__":
    linepool.run(app)
