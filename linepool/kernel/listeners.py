"""Listeners: opened by the master before the first fork, shared by all workers.

Options set here are inherited by every accepted connection, so a connection costs no system call
for them (socket(7), tcp(7)).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct

from linepool.address import Address, parse_address
from linepool.errors import SetupError
from linepool.ipc.board import Board
from linepool.kernel.sock_diag import unix_queue
from linepool.settings import Settings

_TICK = 0.25  # seconds after which a worker that waits in accept() or recv() looks up for once
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
_SO_COOKIE = 57  # socket(7); the socket module has no name for it
_PORTS = range(1, 64)  # places in the board's head for the ports of wake-up connections


class Listener:
    """One listening socket.

    Attributes:
        name: ``HOST:PORT`` or ``unix:/PATH``, with the real port.
    """

    def __init__(self, sock: socket.socket, path: str = "") -> None:
        self.socket = sock
        self._family = sock.family
        self._path = path
        self._inode = os.stat(path).st_ino if path else 0
        self.is_unix = sock.family == socket.AF_UNIX
        self.name = f"unix:{sock.getsockname()}" if self.is_unix else show(sock.getsockname())

    def accept(self) -> tuple[socket.socket, object]:
        """Return a new connection, which blocks, and the address of its peer."""
        # socket.accept() asks the listener for its family and its kind each time, and makes enum members
        # of them: 14 microseconds in place of 9.
        descriptor, address = self.socket._accept()  # type: ignore[attr-defined]
        return as_connection(descriptor, self._family), address

    def queue(self) -> tuple[int, int]:
        """Return how many connections the kernel has queued, and how many it may."""
        if self.socket.fileno() < 0:  # let go of, for the master is gone
            return 0, 0
        if self.is_unix:
            return unix_queue(self.socket)
        # tcp(7), TCP_INFO: on a listener tcpi_unacked is the queue, tcpi_sacked its limit.
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        queued, limit = struct.unpack_from("=II", info, 24)
        return queued, limit

    def close(self) -> None:
        """Close this process's copy."""
        self.socket.close()

    def remove(self) -> None:
        """Close it for good, in the master: the file of a unix socket goes too, if it is still ours."""
        self.close()
        with contextlib.suppress(OSError):
            if self._path and os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


def as_connection(descriptor: int, family: int = socket.AF_INET) -> socket.socket:
    """Return the socket of a connection's descriptor; it blocks.

    Which family it has does not matter to what is done with it, and to ask the kernel would cost more.
    """
    sock = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
    if sock.gettimeout() is not None:  # the app has set a default for sockets of its own
        sock.settimeout(None)
    return sock


def open_listeners(settings: Settings) -> list[Listener]:
    """Open all listeners, or none.

    Raises:
        SetupError: An address cannot be listened on; the text names it and says why.
    """
    listeners: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for text in settings.bind:
            try:
                listener = _open(parse_address(text), settings)
            except (OSError, UnicodeError) as error:  # the latter: no name that DNS can have
                reason = getattr(error, "strerror", None) or error
                raise SetupError(f"cannot listen on {text}: {reason}") from None
            undo.callback(listener.remove)
            listeners.append(listener)
        undo.pop_all()
    return listeners


def _open(address: Address, settings: Settings) -> Listener:
    if address.descriptor >= 0:
        sock = socket.socket(fileno=address.descriptor)
        sock.set_inheritable(False)  # it was passed to us, not to what handlers start
    elif address.path:
        sock = bind_unix(address.path, settings.unix_mode)
    else:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = found[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind(where)
        except OSError:
            sock.close()
            raise
    _set_inherited_options(sock, settings)
    sock.listen(settings.backlog)
    # Who polls first must not wait in accept() for a client that another worker has taken. The flag
    # is not inherited by accepted sockets (accept(2), Linux).
    sock.setblocking(settings.sleeps_in_accept)
    return Listener(sock, address.path)


def bind_unix(path: str, mode: int) -> socket.socket:
    """Bind a unix socket; a file left over from a dead server is replaced.

    Raises:
        SetupError: A live server listens there, or the file is no socket.
    """
    if os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SetupError(f"cannot listen on unix:{path}: the file exists and is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # a live server may have a full backlog
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            except BlockingIOError:
                raise SetupError(
                    f"cannot listen on unix:{path}: another server listens there"
                ) from None
            else:
                raise SetupError(f"cannot listen on unix:{path}: another server listens there")
    sock = socket.socket(socket.AF_UNIX)
    # The mode holds from the first moment on; chmod after bind would leave a gap.
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _set_inherited_options(sock: socket.socket, settings: Settings) -> None:
    set_tick(sock, tick(settings))
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def tick(settings: Settings) -> float:
    """Return the seconds after which a worker that waits looks up."""
    return min(_TICK, settings.idle_timeout)


def set_tick(sock: socket.socket, seconds: float) -> None:
    """Have accept() and recv() give up after so long (socket(7), SO_RCVTIMEO)."""
    value = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


def show(address: object) -> str:
    """Return a socket's address as text; a unix client has none that tells anything."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix"


def socket_cookie(sock: socket.socket) -> int:
    """Return the number that the kernel gives a socket once in its life, whoever holds it."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")


class Waker:
    """Wakes workers that sleep in accept(), by connections to their listener.

    A signal would not do: one that arrives just as accept() returns makes the client disappear.
    The connections carry nothing; a worker knows one by its port, which stands on the board before
    it connects (of a unix socket, by the name that the master's end is bound to), closes it, and
    looks at its orders. accept() serves sleepers in turn, so as many as there are sleepers reach
    them all.
    """

    def __init__(self, board: Board) -> None:
        self._head = board.wakeups
        self._name = b"\0linepool-wake-" + os.urandom(8)
        self._open: dict[int, socket.socket] = {}

    def wake(self, listener: Listener, count: int) -> None:
        """Make so many wake-up connections, without waiting for any of them."""
        self._collect()
        free = [place for place in _PORTS if place not in self._open]
        for place in free[:count]:
            with contextlib.suppress(OSError):  # a full backlog: then nobody sleeps
                self._connect(listener.socket, place)

    def is_mine(self, listener: Listener, address: object) -> bool:
        """Whether an accepted connection is a wake-up; asked by workers."""
        if not self._head[0]:
            return False
        if listener.is_unix:
            return isinstance(address, bytes) and address.startswith(self._name)
        assert isinstance(address, tuple)
        return address[1] in self._head[1:].tolist() and address[0] in _local(listener.socket)

    def close(self) -> None:
        """Close the master's ends."""
        for sock in self._open.values():
            sock.close()
        self._open.clear()

    def _collect(self) -> None:
        """Close the master's ends of those that a worker has closed.

        Not earlier: as long as the master holds one, no client can come from its port.
        """
        for place, sock in list(self._open.items()):
            try:
                seen = sock.recv(1) == b""
            except BlockingIOError:
                seen = False
            except OSError:
                seen = True
            if seen:
                self._head[place] = 0
                del self._open[place]
                sock.close()
        self._head[0] = len(self._open)

    def _connect(self, target: socket.socket, place: int) -> None:
        sock = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._open[place] = sock
        self._head[0] = len(self._open)
        if target.family == socket.AF_UNIX:
            sock.bind(self._name + os.urandom(8))
            sock.connect(target.getsockname())
            return
        host = _local(target)[0]
        sock.bind((host, 0))
        self._head[place] = sock.getsockname()[1]
        with contextlib.suppress(BlockingIOError):
            sock.connect((host, target.getsockname()[1]))


def _local(listener: socket.socket) -> tuple[str, ...]:
    """Return the addresses from which a wake-up for a listener can come."""
    host = listener.getsockname()[0]
    return {"0.0.0.0": ("127.0.0.1",), "::": ("::1",)}.get(host, (host,))  # noqa: S104
