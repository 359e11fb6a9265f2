"""What the kernel knows about the server's processes and TCP connections (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# ESTABLISHED and CLOSE_WAIT; a connection that the server has closed is in another state.
_OPEN_STATES = {"01", "08"}


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, zombies included."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_zombie(pid: int) -> bool:
    """Return whether a process has ended and is not reaped."""
    return _state(Path(f"/proc/{pid}")) == "Z"


def is_asleep(pid: int) -> bool:
    """Return whether a process waits for something."""
    return _state(Path(f"/proc/{pid}")) == "S"


def has_stopped(pid: int) -> bool:
    """Return whether no thread of a process runs."""
    return all(_state(task) in "TZX" for task in Path(f"/proc/{pid}/task").iterdir())


def _state(process: Path) -> str:
    # The command, in parentheses, may contain any character.
    return (process / "stat").read_text().rpartition(")")[2].split()[0]


def client_ports(pid: int, server_port: int) -> frozenset[int]:
    """Return the client ports of the connections that a process holds."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        name = os.readlink(entry.path)
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    ports = {port for _, port, inode in _tcp_table(server_port) if inode in inodes}
    return frozenset(ports - {0})  # 0: the listener


def count_open(server_port: int) -> int:
    """Return how many connections the server has not closed."""
    return sum(state in _OPEN_STATES for state, _, _ in _tcp_table(server_port))


def _tcp_table(server_port: int) -> Iterator[tuple[str, int, str]]:
    """Yield (state, client port, inode) of the server's end of each connection."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, _, _, _, _, _, inode, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == server_port:
            yield state, int(remote.rpartition(":")[2], 16), inode
