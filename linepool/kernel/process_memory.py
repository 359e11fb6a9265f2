"""How much memory of a process is its own, and how much it shares with others."""

from __future__ import annotations

from attrs import frozen


@frozen
class ProcessMemory:
    """The resident memory of a process, in bytes.

    Attributes:
        own: What only this process has: so much another process like it would add.
        shared: What other processes have too.
    """

    own: int
    shared: int


def memory_of(pid: int) -> ProcessMemory | None:
    """Return the memory of a process; None: it is gone, or this process may not look (proc_pid_smaps(5))."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            sizes = {
                key: int(words[1])
                for line in file
                if (key := (words := line.split())[0])[-1:] == b":"
            }
        own = sizes[b"Private_Clean:"] + sizes[b"Private_Dirty:"]
        return ProcessMemory(own * 1024, (sizes[b"Rss:"] - own) * 1024)
    except (OSError, ValueError, KeyError, IndexError):
        return None
