"""What is asked of a connected socket, whichever process holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import socket
import struct
import termios
from functools import partial
from typing import Any

from linepool.kernel import features

CHUNK = 16384  # bytes of one recv(); more would cost each small request 0.7 microseconds
DONTWAIT = int(socket.MSG_DONTWAIT)
LONGEST_WAIT = 2_000_000  # seconds; poll(2) takes milliseconds as an int
_MAPPED = "::ffff:"  # such an address of IPv6 is one of IPv4 (RFC 4291, section 2.5.5.2)
_SO_COOKIE = 57  # socket(7); the socket module has no name for it
_SIOCOUTQNSD = 0x894B  # <linux/sockios.h>
_INT = struct.Struct("i")
_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
# Of struct tcp_info in linux/tcp.h: the ms since data has arrived last, also while it waits in the kernel.
_LAST_DATA_RECV = struct.Struct("@52xI")
# Likewise: the state, the bytes received, and how many segments with data were sent.
_FROM_BEGIN = struct.Struct("@B127xQ20xI")
_ESTABLISHED, _CLOSE_WAIT = 1, 8  # TCP_ESTABLISHED; TCP_CLOSE_WAIT: the client has ended its side
_ENDED_BY_PEER = (6, _CLOSE_WAIT, 9, 11)  # and TCP_TIME_WAIT, TCP_LAST_ACK, TCP_CLOSING
LEAST_WAIT_NS = 5_000_000  # the kernel's time stamp may be one tick old, which is 4 ms with HZ=250
_connections = itertools.count(1)
_RESET = struct.pack(
    "ii", 1, 0
)  # SO_LINGER: close with a reset, discard what is unsent (socket(7))


def identity_of(descriptor: int) -> tuple[int, int] | None:
    """Return what no other socket has, its device and inode; None: the descriptor is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class UnixPeer:
    """The client of a unix socket, in place of an address: the process that has connected to it.

    The kernel knows it (unix(7), SO_PEERCRED).

    Attributes:
        credentials: Its pid, uid and gid then; another process may have the connection by now. -1: this
            system does not tell.
    """

    __slots__ = ("credentials",)

    def __init__(self, credentials: tuple[int, int, int]) -> None:
        self.credentials = credentials

    @property
    def uid(self) -> int:
        """The user; -1: not known."""
        return self.credentials[1]

    @property
    def is_known(self) -> bool:
        """Whether this system says which user it is."""
        return self.uid >= 0


def unix_peer(descriptor: int) -> UnixPeer:
    """Return the client of a connection to a unix socket; raises OSError if it is something else."""
    sock = as_connection(descriptor, socket.AF_UNIX)
    try:
        return UnixPeer(credentials_of(sock))
    finally:
        sock.detach()


def credentials_of(sock: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and gid of the other end of a unix socket; -1: this system does not tell.

    Raises:
        OSError: It is something else, or it is gone.
    """
    if features.PEERCRED:
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(found)
        return pid, uid, gid
    import ctypes  # noqa: PLC0415 - not needed to parse options

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "getpeereid"):  # which macOS and the BSDs have
        return -1, -1, -1
    ids = (ctypes.c_uint32 * 2)()
    if libc.getpeereid(sock.fileno(), ctypes.byref(ids), ctypes.byref(ids, 4)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return -1, ids[0], ids[1]


def as_connection(descriptor: int, family: int = socket.AF_INET) -> socket.socket:
    """Return the socket of a connection's descriptor; it blocks.

    Its family does not matter to what is done with it, and to ask the kernel would cost more.
    """
    sock = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
    if sock.gettimeout() is not None:  # the app has set a default for sockets of its own
        sock.settimeout(None)
    return sock


def unmapped(address: Any) -> Any:
    """Return a client's address; of one that has come by IPv4 to an IPv6 socket, that of IPv4 (ipv6(7))."""
    host, port = address[:2]
    return (host[len(_MAPPED) :], port) if host.startswith(_MAPPED) and "." in host else address


def address_text(address: object) -> str:
    """Return a socket's address as text: ``host:port``; ``unix`` for a unix socket's client."""
    if isinstance(address, tuple):
        host, port = address[:2]
        if ":" in host:
            host = unmapped(address)[0]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix"


def address_of_text(text: str) -> object:
    """Return the address that ``address_text`` has shown, without the scope of an IPv6 address.

    Raises:
        ValueError: The text is of another form.
    """
    host, separator, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if separator else ""


def origin_of(address: object) -> int:
    """Return a number for where a client comes from: an IPv4 address, or an IPv6 network of 64 bits.

    It has 32 bits, and is the same in all processes of a server. A unix socket's client has 0.
    """
    if not isinstance(address, tuple):
        return 0
    host = address[0]
    if ":" in host:
        host = unmapped(address)[0]
    if ":" in host:
        return hash(socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]) & 0xFFFFFFFF
    return hash(host) & 0xFFFFFFFF  # the kernel's own text, so the same for the same address


def user_number(uid: int) -> int:
    """Return a number for a user of unix sockets, as ``origin_of`` for an address; not 0."""
    return hash(f"uid {uid}") & 0xFFFFFFFF or 1


def peer_name(sock: socket.socket | None) -> str:
    """Return the address of a connection's client as text; ``-``: it is not known."""
    if sock is not None:
        with contextlib.suppress(OSError):
            return address_text(sock.getpeername())
    return "-"


def local_name(sock: socket.socket) -> str:
    """Return the address of this end of a socket as ``bind`` writes it."""
    address = sock.getsockname()
    if isinstance(address, tuple):
        return address_text(address)
    name = address if isinstance(address, str) else f"@{os.fsdecode(address[1:])}"
    return f"unix:{name}"


def bind_error(error: OSError, where: Any) -> OSError:
    """Return an error of bind(2); it says so if only the IPv4 side of a dual-stack address is taken."""
    if error.errno == errno.EADDRINUSE and where[0] == "::":
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
            return OSError(error.errno, f"{error.strerror} for IPv4, which [::] serves too")
    return error


def socket_cookie(sock: socket.socket) -> int:
    """Return the number that the kernel gives a socket once, the same in every process that holds it.

    Where it gives none, no process looks at a connection of another one: it is the connection's number here.
    """
    if not features.COOKIE:
        return os.getpid() << 32 | next(_connections)
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")


def send_with_end(sock: socket.socket) -> None:
    """Have what is sent from now on arrive together with the end of the stream (tcp(7), TCP_CORK).

    So a client knows of the end as soon as it has read what was sent. If the end does not follow within
    0.2 s, the rest comes without. Unix sockets send at once.
    """
    if features.CORK:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)


def send_to(descriptor: int, data: bytes) -> None:
    """Send bytes on a connection, as far as there is room for them; its client may be gone."""
    if not data:
        return
    sock = socket.socket(fileno=os.dup(descriptor))
    with sock, contextlib.suppress(OSError):
        sock.send(data, DONTWAIT)


def unread_bytes(descriptor: int) -> int:
    """Return how many bytes have arrived and have not been read (ioctl_tty(2), FIONREAD)."""
    try:
        return _ioctl(descriptor, termios.FIONREAD)
    except OSError:  # of a socket that is not a connection
        return 0


def is_open(descriptor: int) -> bool:
    """Whether there is a file under a descriptor's number."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def connection_cookie(descriptor: int) -> int:
    """Return the cookie of a connection; 0: the descriptor is of something else."""
    try:
        sock = as_connection(descriptor)
    except OSError:
        return 0
    try:
        option = partial(sock.getsockopt, socket.SOL_SOCKET)
        is_stream = option(socket.SO_TYPE) == socket.SOCK_STREAM
        is_connection = is_stream and not option(socket.SO_ACCEPTCONN)
        return socket_cookie(sock) if is_connection else 0
    except OSError:  # not a socket
        return 0
    finally:
        sock.detach()


def unsent_bytes(sock: socket.socket) -> int:
    """Return how many bytes the kernel has yet to send; what has left will arrive."""
    if not features.TCP_INFO:
        return 0
    try:
        return _ioctl(sock.fileno(), _SIOCOUTQNSD)
    except OSError:  # of a unix socket, where what was sent is with the client already
        return 0


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Return how many bytes the client's kernel has not confirmed (tcp(7), SIOCOUTQ)."""
    try:
        return _ioctl(sock.fileno(), termios.TIOCOUTQ)
    except OSError:
        return 0


def taken_bytes(sock: socket.socket) -> int | None:
    """Return how many bytes have been read of a connection in its life; None: it is not TCP."""
    before, unread = -1, 0
    while (seen := _seen_from_begin(sock)) is not None:
        received = seen[1]
        if received == before:  # nothing has arrived between the two looks
            return received - unread
        before, unread = received, unread_bytes(sock.fileno())
    return None


def is_untouched(sock: socket.socket) -> bool:
    """Whether a connection is open, and no byte of it was read or sent in its life; TCP only."""
    seen = _seen_from_begin(sock)
    if (
        seen is None
        or seen[0] not in (_ESTABLISHED, _CLOSE_WAIT)
        or seen[2]
        or unacknowledged_bytes(sock)
    ):
        return False
    return taken_bytes(sock) == 0


def _seen_from_begin(sock: socket.socket) -> tuple[int, int, int] | None:
    """Return state, bytes received and segments with data sent (tcp(7), TCP_INFO); None: it is not TCP."""
    if not features.TCP_INFO:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _FROM_BEGIN.size)
    except OSError:
        return None
    if len(info) < _FROM_BEGIN.size:
        return None
    state, received, sent = _FROM_BEGIN.unpack(info)
    return (
        state,
        received - (state in _ENDED_BY_PEER),
        sent,
    )  # the end of the stream counts as a byte


def reset_on_close(sock: socket.socket) -> None:
    """Have the connection reset when it is closed: what the client has not received is discarded."""
    try:  # noqa: SIM105 - contextlib.suppress takes as long as the call itself
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass


def close_by_reset(sock: socket.socket) -> None:
    """Close a connection so that its client learns at once that it has failed."""
    reset_on_close(sock)
    sock.close()


def _ioctl(descriptor: int, request: int) -> int:
    value: int = _INT.unpack(fcntl.ioctl(descriptor, request, bytes(_INT.size)))[0]
    return value


def waited_ns(sock: socket.socket) -> int | None:
    """Return how long ago a client's last bytes arrived, in ns; None: the kernel does not know."""
    if not features.TCP_INFO:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECV.size)
    except OSError:  # a unix socket, or the client is gone
        return None
    if len(info) < _LAST_DATA_RECV.size:
        return None
    since_ns = int(_LAST_DATA_RECV.unpack(info)[0]) * 1_000_000
    return since_ns if since_ns >= LEAST_WAIT_NS else 0
