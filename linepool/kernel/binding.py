"""The opening of listeners, by the master, before the first fork and in a reload.

By address, in the file system, or from another program (LISTEN_FDS).

Options set here are inherited by every accepted connection, so a connection costs no system call
for them (socket(7), tcp(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Literal

from linepool.address import Address, overlap, parse_address, unix_address
from linepool.errors import SetupError
from linepool.kernel import features
from linepool.kernel.listeners import Listener, set_receive_timeout, tick
from linepool.kernel.privileges import owner_of
from linepool.kernel.sockets import bind_error
from linepool.settings import Settings

Kind = Literal["listener", "socket", "other"]  # of a descriptor that another program has opened
_KEEPALIVE = (
    (features.TCP_KEEPIDLE, 60),
    (getattr(socket, "TCP_KEEPINTVL", 0), 15),
    (getattr(socket, "TCP_KEEPCNT", 0), 4),
)
"""Options and their values; 0: this system has no such option, as OpenBSD has none of them."""


def open_listeners(settings: Settings, numbers: Sequence[int] | None = None) -> list[Listener]:
    """Open listeners, or none; the files of unix sockets belong to the user that serves.

    Args:
        settings: All of them.
        numbers: Which of the addresses in ``bind``; None: all.

    Raises:
        SetupError: An address cannot be listened on; the text names it and says why.
    """
    addresses, keys = [parse_address(text) for text in settings.bind], settings.keys
    # IPv6 comes last: which ports of IPv4 are taken is known by then.
    wanted = range(len(addresses)) if numbers is None else numbers
    order = sorted(wanted, key=lambda number: ":" in addresses[number].host)
    listeners: dict[int, Listener] = {}
    with contextlib.ExitStack() as undo:
        for number in order:
            try:
                own = settings.of_listener(keys[number])
                listener = _open(addresses[number], own, settings, list(listeners.values()))
                listener.key = keys[number]
            except (OSError, UnicodeError) as error:  # the latter: not a name that DNS can have
                reason = getattr(error, "strerror", None) or error
                if getattr(error, "errno", 0) == errno.EADDRINUSE:
                    for one in listeners:
                        if overlap(addresses[one], addresses[number]):
                            reason = f"bind has {settings.bind[one]} too; give one of the two"
                raise SetupError(f"cannot listen on {settings.bind[number]}: {reason}") from None
            undo.callback(listener.remove)
            listeners[number] = listener
        undo.pop_all()
    return [listeners[number] for number in wanted]


def _open(address: Address, own: Settings, settings: Settings, others: list[Listener]) -> Listener:
    """Open a listener; ``own`` are its settings, ``settings`` those of the server."""
    if address.name:
        raise OSError("it has no descriptors here (LISTEN_FDS)")
    if address.descriptor >= 0:
        sock = _passed(address.descriptor)
    elif address.path:
        owner = owner_of(settings.user, settings.group)
        sock = bind_unix(address.path, own.unix_mode, owner)
    else:
        sock = _bound(address, [one.socket for one in others], shared=own.reuseport)
    _set_inherited_options(sock)
    if not settings.has_parker:  # connections inherit it, the first ones too
        set_receive_timeout(sock, tick(own))
    sock.listen(own.backlog)
    # A worker that polls first must not wait in accept() for a client that another worker has taken.
    # The flag is not inherited by accepted sockets (accept(2), Linux).
    sock.setblocking(settings.blocks_in_accept and features.SHUTDOWN)
    return Listener(sock, address.path, owned=address.descriptor < 0)


def bind_tcp(address: Address) -> socket.socket:
    """Return a socket that is bound to an address with a port.

    Raises:
        OSError, UnicodeError: It cannot be.
    """
    return _bound(address, [], shared=False)


def kind_of(descriptor: int) -> Kind:
    """Return what an open descriptor is; only a stream socket that listens is a listener."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:  # not a socket, or not open
        return "other"
    try:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return "listener" if listens and sock.type == socket.SOCK_STREAM else "socket"
    finally:
        sock.detach()


def _passed(descriptor: int) -> socket.socket:
    """Return a socket that another program has opened.

    Raises:
        OSError: It is not one to listen on.
    """
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)  # it was passed to us, not to what handlers start
    reason = ""
    if sock.type != socket.SOCK_STREAM:
        reason = "it is not a stream socket"
    else:
        with contextlib.suppress(OSError):
            sock.getpeername()
            reason = "it is a connection, not a listener (for systemd: Accept=no)"
    if reason:
        sock.detach()
        raise OSError(reason)
    return sock


def _bound(address: Address, others: list[socket.socket], *, shared: bool) -> socket.socket:
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        # [::] serves IPv4 too, if nothing else here does at this port (ipv6(7)).
        ports = [one.getsockname()[1] for one in others if one.family == socket.AF_INET]
        with contextlib.suppress(OSError):  # OpenBSD serves IPv6 only, and takes no other value
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.port in ports)
    try:
        sock.bind(where)
    except OSError as error:
        sock.close()
        raise bind_error(error, where) from None
    return sock


def bind_unix(path: str, mode: int, owner: tuple[int, int] | None = None) -> socket.socket:
    """Bind a unix socket; a file left over from a dead server is replaced. ``@NAME`` is not a file.

    Args:
        path: Of the socket.
        mode: Of the file.
        owner: Its uid and gid; None: those of this process.

    Raises:
        SetupError: A live server listens there, or the file is not a socket.
        OSError: The kernel refuses it.
    """
    if not path.startswith("@") and os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SetupError(f"cannot listen on unix:{path}: the file exists and is not a socket")
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
        sock.bind(unix_address(path))
        if owner is not None and not path.startswith("@"):
            _give(path, owner)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _give(path: str, owner: tuple[int, int]) -> None:
    """Change the owner of a socket's file.

    By a descriptor of the file: the owner may be able to put another one in its place meanwhile.

    Raises:
        OSError: The kernel refuses it.
    """
    file = os.open(path, features.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISSOCK(os.fstat(file).st_mode):
            os.chown(f"/proc/self/fd/{file}", *owner)
    finally:
        os.close(file)


def _set_inherited_options(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if option:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
