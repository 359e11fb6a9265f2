"""Listeners: opened by the master before the first fork, shared by all workers."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any

from linepool.kernel import features
from linepool.kernel.shared_memory import SharedMemory
from linepool.kernel.sock_diag import unix_queue
from linepool.kernel.sockets import (
    as_connection,
    local_name,
    socket_cookie,
    unix_peer,
    unmapped,
)
from linepool.kernel.standard import LAST_STANDARD, moved_away
from linepool.settings import Settings

_TICK = 0.25  # seconds
_IP_MINTTL = 21  # ip(7); the socket module has no names for these two
_IPV6_MINHOPCOUNT = 73
_OPEN, _ENDING, _SHUT = range(3)  # what all processes know of a listener
_PHASE_BYTES = 1
_TIMEVAL = struct.Struct("@ll")  # of socket(7), SO_RCVTIMEO


class Listener:
    """One listening socket.

    Attributes:
        name: ``HOST:PORT``, ``unix:/PATH`` or ``unix:@NAME``, with the real port.
        names: All that it serves: ``[::]:PORT`` may serve ``0.0.0.0:PORT`` too.
        key: Its address in the setting ``bind``; ``ADDRESS#2`` if that is there twice, as with port 0.
        is_unix: It is a unix socket.
        memory: What all processes know of it.
        phase: The map of this memory.
        owned: It was opened here. One that another program has passed to this one may serve others too,
            so it is never ended, only left.
    """

    def __init__(self, sock: socket.socket, path: str = "", *, owned: bool = True) -> None:
        self._path = "" if path.startswith("@") else path
        self._inode = os.stat(path).st_ino if self._path else 0
        self._remover = os.getpid()
        self._use(sock, SharedMemory(_PHASE_BYTES, "listener"), owned)
        self.names = _names(sock)
        self.name = self.names[0]
        self.key = ""

    def _use(self, sock: socket.socket, memory: SharedMemory, owned: bool) -> None:
        self.socket = sock
        self.owned = owned
        self.memory = memory
        self.phase = memory.map
        self._family = sock.family
        self.is_unix = sock.family == socket.AF_UNIX
        self._address = sock.getsockname()
        self._backlog = 0 if self.is_unix else self.queue()[1]
        self._cookie = socket_cookie(sock)

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another process needs to take it over, for JSON, and descriptors; it keeps them."""
        facts = {
            "names": self.names,
            "owned": self.owned,
            "key": self.key,
            "path": self._path,
            "inode": self._inode,
            "remover": self._remover,
        }
        return facts, [self.socket.fileno(), self.memory.descriptor]

    @classmethod
    def taken_over(cls, facts: dict[str, Any], descriptors: list[int]) -> Listener:
        """Return the listener that another process has handed over.

        Only the process that has made the file of a unix socket removes it, by its pid, which stays the
        same over exec.

        Args:
            facts: As returned by ``handed_over``.
            descriptors: Likewise; the new object owns them. If this raises, some may be closed.

        Raises:
            ValueError: A descriptor is of something else.
            OSError: The kernel has no memory for it, or a descriptor is not of a socket.
        """
        number, shared = descriptors
        memory = SharedMemory.attach(shared, _PHASE_BYTES)
        blocks = os.get_blocking(number)
        sock = socket.socket(fileno=number)
        if memory.map[0] != _SHUT and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.close()
            raise ValueError(f"descriptor {number} is not the listener {facts['names'][0]}")
        sock.setblocking(blocks)  # whatever default the app has set for sockets of its own
        sock.set_inheritable(False)
        listener = cls.__new__(cls)
        listener._use(sock, memory, facts["owned"])
        listener._path, listener._inode = facts["path"], facts["inode"]
        listener._remover = facts["remover"]
        listener.names = facts["names"]
        listener.name = listener.names[0]
        listener.key = facts.get("key", "")  # older versions have none
        return listener

    def accept(self) -> tuple[socket.socket, object]:
        """Return a new connection, which blocks, and the address of its peer, or a ``UnixPeer``.

        Raises:
            OSError: There is none, or its client has left already.
        """
        # socket.accept() asks the listener for its family and its kind each time, and makes enum members
        # of them: 14 microseconds in place of 9.
        descriptor, address = self.socket._accept()  # type: ignore[attr-defined]
        if descriptor <= LAST_STANDARD:
            descriptor = moved_away(descriptor)
        sock = as_connection(descriptor, self._family)
        if not features.INHERITED:
            self._give_options(sock, address)
        if self.is_unix:
            return sock, unix_peer(descriptor)
        if self.phase[0] and features.SHUTDOWN:
            _require_ttl(sock, 0)  # what it has inherited is meant for newcomers
        return sock, unmapped(address) if self._family == socket.AF_INET6 else address

    def _give_options(self, sock: socket.socket, address: object) -> None:
        """Give a connection what it inherits on Linux: it blocks, and recv() gives up as accept() does.

        Raises:
            OSError: Its client has left: macOS then tells no address, and takes no options.
        """
        try:
            if address is None:
                raise ConnectionAbortedError
            sock.setblocking(True)
            value = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.size)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        except OSError:
            sock.close()
            raise

    def queue(self) -> tuple[int, int]:
        """Return how many connections the kernel has queued, and how many it may."""
        try:
            if not features.TCP_INFO:
                return int(_is_readable(self.socket)), 0
            if self.is_unix:
                return unix_queue(self.socket)
            # tcp(7), TCP_INFO: on a listener tcpi_unacked is the queue, tcpi_sacked its limit.
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        except OSError:  # closed, because the master has ended
            return 0, 0
        queued, limit = struct.unpack_from("=II", info, 24)
        return queued, limit

    @property
    def is_here(self) -> bool:
        """Whether this process still has it under its descriptor: a handler may have closed that."""
        try:
            if not features.COOKIE:
                return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            return socket_cookie(self.socket) == self._cookie
        except OSError:
            return False

    @property
    def listens(self) -> bool:
        """Whether clients can connect to it: a handler may have shut it, for all processes."""
        if not self.is_unix:
            return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        poller = select.poll()
        poller.register(self.socket, 0)  # it reports an end in any case
        return not poller.poll(0)

    @property
    def has_lost_file(self) -> bool:
        """Whether the file of a unix socket was removed, or is another one's: no client finds it then."""
        if not self._path:
            return False
        try:
            return os.stat(self._path).st_ino != self._inode
        except OSError:
            return True

    def reopen(self) -> bool:
        """Listen again; return whether that can be done.

        A unix socket that was shut cannot (Linux), and what another program owns is left as it is.
        """
        if self.is_unix or not self.owned:
            return False
        try:
            with contextlib.suppress(OSError):  # only a port that the kernel chose is free now
                self.socket.bind(self._address)
            self.socket.listen(self._backlog or socket.SOMAXCONN)
        except OSError:
            return False
        return True

    @property
    def is_ending(self) -> bool:
        """Whether its end has begun: then processes leave it as it is."""
        return self.phase[0] != _OPEN

    @property
    def is_shut(self) -> bool:
        """Whether it has ended in all processes: once accept() fails, no client is left in the backlog."""
        return self.phase[0] == _SHUT

    def turn_away(self) -> None:
        """Begin to end it, in the master: the kernel begins no more handshakes, whichever process accepts.

        TCP: it drops what newcomers send, and they try again after a second; handshakes under way go on.
        The option that does it without a privilege wants a TTL of 255 (ip(7), IP_MINTTL), and no usual
        system sends that. A unix socket has no handshakes: its end keeps the backlog and refuses others.
        """
        if self.is_unix:
            self._unlink()
            self.shut()
        elif self.owned and features.SHUTDOWN:
            self.phase[0] = _ENDING  # before any connection can inherit the option
            _require_ttl(self.socket, 255)

    def shut(self) -> None:
        """End it in all processes, if it is ours: its address is free, and newcomers are refused.

        The backlog of a TCP listener is reset. Where shutdown(2) does not end a listener, this process's copy
        is closed; each other process closes its own when it sees ``is_shut``, and accepts what is in the
        backlog before. May be called by: any thread of any process.
        """
        if self.owned and not features.SHUTDOWN:
            self.phase[0] = _SHUT
            self._end_here()
        elif self.owned:
            with contextlib.suppress(OSError, ValueError):  # closed already
                self.phase[0] = max(self.phase[0], _ENDING)  # from now on no process opens it again
                try:
                    self.socket.shutdown(socket.SHUT_RD)
                except OSError as error:
                    if error.errno != errno.ENOTCONN:  # it was shut already
                        raise
                self.phase[0] = _SHUT

    def _end_here(self) -> None:
        """Close the socket, though another thread may be using its number, which stays taken."""
        with contextlib.suppress(OSError):  # it is closed already
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, self.socket.fileno(), inheritable=False)
            os.close(nothing)

    def close(self) -> None:
        """Close this process's copy."""
        self.socket.close()
        self.memory.close()

    def lose(self) -> None:
        """Forget this process's copy: a handler has closed it, and its number may be another file's."""
        self.socket.detach()
        self.memory.close()

    def remove(self) -> None:
        """Close it for good, in the master: the file of a unix socket goes too, if it is still ours."""
        self.close()
        self._unlink()

    def _unlink(self) -> None:
        path, self._path = self._path, ""
        with contextlib.suppress(OSError):
            is_ours = os.getpid() == self._remover
            if path and is_ours and os.stat(path).st_ino == self._inode:
                os.unlink(path)


def listener_at(local: str, listeners: Sequence[Listener]) -> Listener | None:
    """Return the listener that a connection came to; None: it is not there any more.

    Args:
        local: The server's end of the connection, as ``local_name`` returns it.
        listeners: All that it may be.
    """
    port = local.rpartition(":")[2]
    for listener in listeners:
        if local in listener.names:
            return listener
    # All that is known behind a bind to any address. No other listener can have the port there.
    wildcards = (f"0.0.0.0:{port}", f"[::]:{port}")
    return next((one for one in listeners if any(name in wildcards for name in one.names)), None)


def _names(sock: socket.socket) -> list[str]:
    """Return the addresses that a listener serves; see ``Listener``."""
    address = sock.getsockname()
    names = [local_name(sock)]
    if sock.family == socket.AF_UNIX:
        return names
    if address[0] == "::" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        names.append(f"0.0.0.0:{address[1]}")
    return names


def _require_ttl(sock: socket.socket, ttl: int) -> None:
    """Have the kernel drop packets to a socket whose TTL is lower; IPv4 may reach an IPv6 socket too."""
    with contextlib.suppress(OSError):  # a kernel without the option
        sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, ttl)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, ttl)


def _is_readable(listener: socket.socket) -> bool:
    """Whether a client waits, as far as poll(2) tells."""
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    return bool(poller.poll(0))


def tick(settings: Settings) -> float:
    """Return the seconds after which accept() and recv() of the scheme ``accept`` give up."""
    return min(_TICK, settings.idle_timeout)


def set_receive_timeout(sock: socket.socket, seconds: float) -> None:
    """Have accept() and recv() give up after some time (socket(7), SO_RCVTIMEO)."""
    value = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
