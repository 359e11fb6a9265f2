"""Measure how the time for one long request grows with its length, in every protocol.

Each stream is replayed whole, in pieces of 64 bytes, and moved: in pieces of 4 KiB, with a move to another
process after each, as far as a worker allows it (a large state stays for a while) for a client that sends
1 MiB/s. Figures are milliseconds of CPU, the least of the rounds; "x4" is the factor between the last two
sizes, which is 4 if the time is linear.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from linepool import App, Dialogue, JsonRpc, Limits, Line, Memcache, Protocol, Resp, body
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.resources import Resources
from linepool.service import Service
from linepool.session import Session
from linepool.worker.connection import seconds_to_stay

_SIZES = [4**exponent * 65536 for exponent in range(4)]
_PIECE_BYTES = 64
_MOVED_BYTES = 4096
_BYTES_PER_SECOND = 2**20


def _app(protocol: Protocol) -> App:
    app = App(protocol=protocol)
    if isinstance(protocol, Dialogue):

        @app.handler("DATA")
        def data(text: bytes = body()) -> None: ...

    elif isinstance(protocol, Line | Memcache):

        @app.handler("set")
        def store(
            key: bytes, flags: int, exptime: int, size: int, data: bytes = body("size")
        ) -> bool:
            return True

        @app.handler("get")
        def get(*keys: bytes) -> None: ...

    else:

        @app.handler("ECHO" if isinstance(protocol, Resp) else "echo")
        def echo(*words: str) -> None: ...

    return app


def _bulk(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in words)


def _call(size: int) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"echo","params":["%b"]}' % (b"x" * size)


def _framed(size: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(_call(size)), _call(size))


Make = Callable[[int], bytes]
STREAMS: dict[str, tuple[Callable[[int], Protocol], Make]] = {
    "line, block": (lambda _: Line(), lambda n: b"set k 0 0 %d\n%b\n" % (n, b"x" * n)),
    "line, blank lines": (lambda _: Line(), lambda n: b"\n" * n),
    "memcache, block": (lambda _: Memcache(), lambda n: b"set k 0 0 %d\r\n%b\r\n" % (n, b"x" * n)),
    "memcache, get": (
        lambda n: Memcache(max_multiget_bytes=n + 100),
        lambda n: b"get" + b" key" * (n // 4) + b"\r\n",
    ),
    "resp, word": (lambda _: Resp(), lambda n: _bulk(b"ECHO", b"x" * n)),
    "resp, words": (lambda _: Resp(), lambda n: _bulk(b"ECHO", *[b"x"] * (n // 7))),
    "resp, transaction": (
        lambda n: Resp(transactions=True, max_queue=n),
        lambda n: b"MULTI\r\n" + _bulk(b"ECHO", b"x" * 50) * (n // 71),
    ),
    "jsonrpc, line": (lambda _: JsonRpc(), lambda n: _call(n) + b"\n"),
    "jsonrpc, headers": (lambda _: JsonRpc(framing="headers"), _framed),
    "jsonrpc, batch": (
        lambda n: JsonRpc(max_batch=n),
        lambda n: b"[%b]\n" % b",".join([_call(9)] * (n // 69)),
    ),
    "dialogue, lines": (
        lambda _: Dialogue(),
        lambda n: b"DATA\r\n" + (b"x" * 60 + b"\r\n") * (n // 62) + b".\r\n",
    ),
    "dialogue, a line": (lambda _: Dialogue(), lambda n: b"DATA\r\n" + b"x" * n + b"\r\n.\r\n"),
}


def replay(service: Service, stream: bytes, piece: int, *, moving: bool) -> float:
    """Return the seconds of CPU that a stream takes in pieces of this many bytes."""
    session = Session("b", "b", "b")
    conversation = Conversation(service, session, Resources())
    now = stays_until = 0.0
    began = time.process_time()
    for at in range(0, len(stream), piece):
        conversation.feed(stream[at : at + piece])
        for _ in answers(conversation):
            pass
        now += piece / _BYTES_PER_SECOND
        if moving and now >= stays_until:
            state = conversation.dump()
            conversation = Conversation(service, session, Resources())
            conversation.load(state)
            stays_until = now + seconds_to_stay(len(state))
    return time.process_time() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=STREAMS, help="one of the streams")
    given = parser.parse_args(arguments)
    sizes = "".join(f"{size // 1024:>9} KiB" for size in _SIZES)
    print(f"{'':28}{sizes}{'x4':>8}")
    for name, (protocol, make) in STREAMS.items():
        if given.only not in (None, name):
            continue
        for how in ("whole", "pieces", "moved"):
            spent = []
            for size in _SIZES:
                service = _app(protocol(size)).freeze(Limits(max_body_bytes=size + 1000))
                stream = make(size)
                piece = {"whole": len(stream), "pieces": _PIECE_BYTES, "moved": _MOVED_BYTES}[how]
                spent.append(
                    min(
                        replay(service, stream, piece, moving=how == "moved")
                        for _ in range(given.rounds)
                    )
                )
            row = "".join(f"{1000 * seconds:13.2f}" for seconds in spent)
            print(f"{name:20}{how:8}{row}{spent[-1] / max(spent[-2], 1e-9):8.1f}", flush=True)


if __name__ == "__main__":
    main()
