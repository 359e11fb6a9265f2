"""A chat: people who have joined a room read what others say there, whichever workers serve them.

linepool run examples/services/chat.py --bind 127.0.0.1:7000
telnet 127.0.0.1 7000
"""

import linepool
from linepool import ClientError, Connection, PubSub, Rest, Session


class Chat(linepool.Line):
    """The line protocol; connections may subscribe to channels, and a message is a line."""

    publishes = True


app = linepool.App("chat", protocol=Chat(), idle_timeout=3600)


def say_in(room: str, text: str, pubsub: PubSub) -> int:
    if not text.isprintable():  # it is shown at other people's terminals
        raise ClientError("only printable characters are allowed")
    return pubsub.publish(room.encode(), f"{room}: {text}".encode())


def place_of(session: Session) -> tuple[str, str]:
    """Return the name of the user and of the room."""
    if "room" not in session:
        raise ClientError("join a room first: JOIN room name")
    return str(session.user), str(session["room"])


@app.on_connect
def greet() -> str:
    return "A chat. JOIN a room under a name."


@app.handler
def join(room: str, name: str, session: Session, connection: Connection, pubsub: PubSub) -> str:
    """Enter a room, and leave the one before."""
    if "room" in session:
        leave(session, connection, pubsub)
    session.user, session["room"] = name, room
    connection.subscribe(room.encode())
    say_in(room, f"{name} has come", pubsub)
    others = pubsub.subscribers(room.encode()) - 1
    return f"Hello {name}. Others in {room}: {others}"


@app.handler
def say(text: Rest, session: Session, pubsub: PubSub) -> None:
    """Say something to all in the room."""
    name, room = place_of(session)
    say_in(room, f"{name}: {text}", pubsub)


@app.handler
def rooms(pubsub: PubSub) -> dict[str, int]:
    """List the rooms, and how many are in each."""
    return {name.decode(): pubsub.subscribers(name) for name in sorted(pubsub.channels())}


@app.handler
def leave(session: Session, connection: Connection, pubsub: PubSub) -> None:
    """Leave the room."""
    name, room = place_of(session)
    connection.unsubscribe(room.encode())
    del session["room"]
    say_in(room, f"{name} has left", pubsub)


@app.on_disconnect
def gone(session: Session, pubsub: PubSub) -> None:
    if "room" in session:
        say_in(session["room"], f"{session.user} has left", pubsub)


if __name__ == "__main__":
    linepool.run(app)
