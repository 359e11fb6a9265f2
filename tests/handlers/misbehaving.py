"""Handlers that misuse what a worker shares with others: status pipe, board, channel, descriptors."""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import random
import select
import signal
import socket

from common import current_loop, current_worker

import linepool
from linepool.ipc import channel as channels
from linepool.ipc.messages import ConnectionState, PassedConnection
from linepool.kernel import memory_file
from linepool.pool.status import State, packed


@linepool.handler
def babble(seed: int, size: int) -> None:
    """Write garbage into the status pipe."""
    with contextlib.suppress(BlockingIOError):
        os.write(current_worker()._spec.pipe.writer, random.Random(seed).randbytes(size))


@linepool.handler
def babble_without_end() -> None:
    """Write garbage into the status pipe faster than the master can read it."""
    garbage = random.Random(1).randbytes(65536)
    writer = current_worker()._spec.pipe.writer
    os.set_blocking(writer, True)
    while True:
        os.write(writer, garbage)


@linepool.handler
def lie(state: int, at_ns: int, requests: int) -> None:
    """Write a well-formed record with the given values."""
    spec = current_worker()._spec
    record = packed(spec.slot, State(state), os.getpid(), spec.generation, 0, requests, at_ns)
    os.write(spec.pipe.writer, record)


@linepool.handler
def pose(slot: int) -> None:
    """Write records with the slot of another worker."""
    spec = current_worker()._spec
    record = packed(slot, State.LEAVING, os.getpid(), spec.generation, 0, 0, 0)
    os.write(spec.pipe.writer, record * 8)


@linepool.handler
def scribble(seed: int) -> None:
    """Overwrite this worker's slot of the board with garbage."""
    words = current_worker()._board._words
    source = random.Random(seed)
    for place in range(len(words)):
        words[place] = source.getrandbits(64)


@linepool.handler
def scribble_everywhere(seed: int) -> None:
    """Overwrite the whole board with garbage."""
    page: mmap.mmap = current_worker()._spec.board.head.obj
    page[:] = random.Random(seed).randbytes(len(page))


@linepool.handler
def hush() -> None:
    """Close the status pipe."""
    os.close(current_worker()._spec.pipe.writer)


@linepool.handler
def close_own(what: str) -> None:
    """Close a descriptor that the worker writes to."""
    worker = current_worker()
    spec = worker._spec
    numbers = {
        "pipe": spec.pipe.writer,
        "channel": spec.channel.fileno(),
        "stacks": spec.stack_file,
        "wakeup": worker._orders.wakeup,
    }
    os.close(numbers[what])


@linepool.handler
def close_all() -> None:
    """Close every descriptor, as careless libraries do."""
    os.closerange(3, 256)


@linepool.handler
def overwrite(what: str, word: int, value: int) -> None:
    """Overwrite one word of the board's head or of the next slot."""
    spec = current_worker()._spec
    words = spec.board.head if what == "head" else spec.board.slot(spec.slot + 1)[1]
    words[word] = value


@linepool.handler
def overwrite_and_die(word: int, value: int) -> None:
    """Overwrite one word of this worker's slot, and kill the worker."""
    current_worker()._board._words[word] = value
    os.kill(os.getpid(), signal.SIGKILL)


@linepool.handler
def hand_off(what: str, times: int = 1) -> None:
    """Hand off something that is not a client's connection, as if it were one."""
    spec = current_worker()._spec
    if what == "channel":
        passed = spec.channel.fileno()
    elif what == "listener":
        passed = spec.listeners[0].socket.fileno()
    else:
        passed = OTHERS[what]()
    for _ in range(times):
        state = ConnectionState(0, math.inf, -math.inf)
        channels.send(spec.channel, PassedConnection(state, passed))


def _open_epoll() -> int:
    with select.epoll() as epoll:
        return os.dup(epoll.fileno())


OTHERS = {
    "file": lambda: os.open(__file__, os.O_RDONLY),
    "pipe": lambda: os.pipe()[0],
    "epoll": _open_epoll,
    "datagram": lambda: socket.socket(type=socket.SOCK_DGRAM).detach(),
    "unconnected": lambda: socket.socket().detach(),
}


@linepool.handler
def hand_off_state(connection: linepool.Connection, kind: str) -> None:
    """Hand the client's connection off with a state that is too large, or not a file in memory."""
    spec = current_worker()._spec
    size = 2**31 - 4096
    if kind == "large":
        file = os.memfd_create("large", os.MFD_ALLOW_SEALING)
        os.truncate(file, size)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, memory_file.FIXED)
    else:
        file = os.open(__file__, os.O_RDONLY)
    assert connection.peer  # so that it stays in this worker
    client = current_worker()._board.served_descriptor
    head = channels.PASSED.pack(
        channels._Kind.CONNECTION, channels._VERSION, channels._AS_FILE, 0, 1e300, 0.0, 0, 0
    )
    channels._send_with(spec.channel, [head], [client, file])
    os.close(file)


@linepool.handler
def close_neighbour(put: str) -> int:
    """Close the descriptor of another client's connection; perhaps put something else there."""
    served = current_worker()._board.served_descriptor
    (victim,) = current_loop()._table.connections.keys() - {served}
    os.close(victim)
    if put:
        other = OTHERS[put]()
        if other != victim:
            os.dup2(other, victim)
            os.close(other)
    return int(victim)
