"""Where the server of this process can be asked for its state, as far as a worker knows it."""

from __future__ import annotations

control = ""
"""The setting ``control``; "": this process is not a worker."""
master = 0
"""The pid of the master."""


def note(setting: str, pid: int) -> None:
    """Have this process be a worker of a server.

    Args:
        setting: The server's setting ``control``.
        pid: Its master's.
    """
    global control, master
    control, master = setting, pid
