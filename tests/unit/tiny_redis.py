"""A few commands of Redis over a dict, and what Redis itself answered, for tests of the protocol."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from linepool import App, Resp
from linepool.protocols.resp import OK, Status

_RECORDED = Path(__file__).with_name("redis_dialogues.txt")
_REVEALS = re.compile(
    rb"-ERR (?:unknown command|wrong number of arguments for '(?!auth|hello|quit|reset)).*\r\n"
)


def recorded(*, password: bool, config: bool = False) -> list[tuple[bytes, bytes]]:
    """Return recorded dialogues with Redis: what the client sent, and all that it received.

    Redis says to everybody which commands it has. An app's commands are its own, so here a client that has
    yet to log in reads the same of all.

    Args:
        password: Those with the password ``pw``, or those without a password.
        config: Those with CONFIG, which is not built in, or the others.
    """
    part = _RECORDED.read_text().split("# With the password")[password]
    dialogues = [ast.literal_eval(line) for line in part.splitlines() if line.startswith("(")]
    required = b"-NOAUTH Authentication required.\r\n"
    return [
        (sent, _REVEALS.sub(required, received) if password else received)
        for sent, received in dialogues
        if (b"CONFIG" in sent) == config
    ]


def tiny_redis(**options) -> App:
    app = App("tiny", protocol=Resp(transactions=True, **options))
    values: dict[bytes, bytes] = {}

    @app.handler
    def get(key: bytes) -> bytes | None:
        return values.get(key)

    @app.handler
    def set_(
        key: bytes,
        value: bytes,
        *,
        ex: int | None = None,
        px: int | None = None,
        nx: bool = False,
        xx: bool = False,
    ) -> Status:
        values[key] = value
        return OK

    @app.handler
    def incrby(key: bytes, increment: int) -> int:
        values[key] = b"%d" % (int(values.get(key, b"0")) + increment)
        return int(values[key])

    @app.handler("DEL")
    def delete(key: bytes, *keys: bytes) -> int:
        return sum(values.pop(one, None) is not None for one in (key, *keys))

    @app.handler
    def flushall() -> Status:
        values.clear()
        return OK

    @app.handler
    def mget(key: bytes, *keys: bytes) -> list[bytes | None]:
        return [values.get(one) for one in (key, *keys)]

    return app
